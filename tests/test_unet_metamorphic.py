"""Properties of the UNet for any weights: runs that compute one thing in two ways give equal numbers."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from t2v_models.unet import UNet3D, UNetConfig
from tests.references.parity import TOLERANCE, difference
from tests.references.seeding import fill, normal

TINY = UNetConfig(
    channels=(32, 64), num_res_blocks=1, attention_levels=(True, False), head_dim=8, context_dim=24, norm_groups=8
)
IMAGES = replace(TINY, in_channels=8, fps_embedding=True, image_attention=True, image_scale=True)
RELATIVE = replace(TINY, temporal_convolution=False, relative_position=2)
DISTILLED = replace(TINY, fps_embedding=True, guidance_dim=16, motion_dim=16)
FRAMEWISE = replace(TINY, temporal_convolution=False, temporal_attention=False, init_attention=False)
CONFIGS = {"plain": TINY, "images": IMAGES, "relative": RELATIVE, "distilled": DISTILLED, "framewise": FRAMEWISE}


def call(config: UNetConfig, batch: int = 2, size: tuple[int, int, int] = (3, 6, 4), tokens: int = 5) -> dict:
    """Every input that a network of this configuration takes."""
    inputs = {
        "x": normal("x", (batch, config.in_channels, *size)),
        "timesteps": torch.tensor([21.0, 901.0, 500.0])[:batch],
        "context": normal("context", (batch, tokens, config.context_dim)),
    }
    if config.fps_embedding:
        inputs["fps"] = torch.tensor([8.0, 24.0, 3.0])[:batch]
    if config.guidance_dim:
        inputs["guidance"] = torch.tensor([7.5, 1.0, 3.0])[:batch]
        inputs["motion_guidance"] = torch.tensor([0.1, 0.5, 0.2])[:batch]
    if config.image_attention:
        inputs["image_context"] = normal("image", (batch, 4, config.context_dim))
    return inputs


def run(unet: UNet3D, inputs: dict) -> torch.Tensor:
    with torch.inference_mode():
        return unet(**inputs)


def cast(inputs: dict, dtype: torch.dtype) -> dict:
    """As models of this type are called."""
    return {
        name: value.to(dtype) if name in ("x", "context", "image_context") else value for name, value in inputs.items()
    }


def rows(inputs: dict, index: slice) -> dict:
    return {name: value[index] for name, value in inputs.items()}


@pytest.fixture(params=CONFIGS, scope="module")
def unet(request):
    return fill(UNet3D(CONFIGS[request.param]))


@pytest.fixture(scope="module")
def plain():
    return fill(UNet3D(TINY))


def test_a_batch_equals_its_runs_one_by_one(unet):
    inputs = call(unet.config, batch=3)
    apart = torch.cat([run(unet, rows(inputs, slice(i, i + 1))) for i in range(3)])
    assert difference(run(unet, inputs), apart) < TOLERANCE


def test_two_texts_for_one_latent_equal_the_latent_repeated(unet):
    inputs = call(unet.config, batch=2)
    shared = {name: value[:1] for name, value in inputs.items()}
    repeated = {name: torch.cat([value, value]) for name, value in shared.items()} | {"context": inputs["context"]}
    shared["context"] = inputs["context"]
    if "image_context" in inputs:
        shared["image_context"] = repeated["image_context"] = inputs["image_context"]
    assert difference(run(unet, shared), run(unet, repeated)) < TOLERANCE


def test_equal_timesteps_of_all_frames_equal_one_timestep(unet):
    inputs = call(unet.config)
    per_frame = inputs | {"timesteps": inputs["timesteps"][:, None].expand(-1, 3)}
    assert difference(run(unet, per_frame), run(unet, inputs)) < TOLERANCE


def test_equal_texts_and_images_of_all_frames_equal_one_of_each(unet):
    inputs = call(unet.config)
    per_frame = {
        name: value[:, None].expand(-1, 3, -1, -1).contiguous() if name.endswith("context") else value
        for name, value in inputs.items()
    }
    assert difference(run(unet, per_frame), run(unet, inputs)) < TOLERANCE
    mixed = per_frame | {"context": inputs["context"]}
    assert difference(run(unet, mixed), run(unet, inputs)) < TOLERANCE


def test_without_temporal_layers_each_frame_depends_on_its_own_timestep_and_text_alone():
    unet = fill(UNet3D(FRAMEWISE))
    x, context = normal("x", (2, 4, 3, 5, 6)), normal("texts", (2, 3, 5, FRAMEWISE.context_dim))
    timesteps = torch.tensor([[1.0, 250.0, 999.0], [40.0, 40.5, 0.0]])
    together = run(unet, {"x": x, "timesteps": timesteps, "context": context})
    for frame in range(3):
        alone = {"x": x[:, :, frame : frame + 1], "timesteps": timesteps[:, frame], "context": context[:, frame]}
        assert difference(together[:, :, frame : frame + 1], run(unet, alone)) < TOLERANCE


def test_a_text_that_frames_share_is_projected_once_and_stays_with_its_frames():
    unet = fill(UNet3D(FRAMEWISE))
    x, texts = normal("x", (2, 4, 4, 5, 6)), normal("texts", (3, 5, FRAMEWISE.context_dim))
    which = torch.tensor([[0, 0, 0, 1], [1, 1, 2, 0]])  # a video begins with the text that the one before ends with
    projected = []
    first = next(module.to_k for name, module in unet.named_modules() if name.endswith("attn2"))
    hook = first.register_forward_hook(lambda module, args, output: projected.append(len(args[0])))
    together = run(unet, {"x": x, "timesteps": torch.tensor([500.0]).repeat(2), "context": texts[which]})
    hook.remove()
    assert projected == [4], "of eight frames, four have another text than the one before"
    for frame in range(4):
        alone = {"x": x[:, :, frame : frame + 1], "timesteps": torch.tensor([500.0]).repeat(2)}
        alone["context"] = texts[which[:, frame]]
        assert difference(together[:, :, frame : frame + 1], run(unet, alone)) < TOLERANCE


def test_the_timestep_of_one_frame_changes_others_through_temporal_layers_alone(plain):
    inputs = call(plain.config, batch=1)
    timesteps = torch.tensor([[500.0, 500.0, 500.0]])
    before = run(plain, inputs | {"timesteps": timesteps})
    change = (run(plain, inputs | {"timesteps": torch.tensor([[500.0, 20.0, 500.0]])}) - before).abs()
    per_frame = change.mean(dim=(0, 1, 3, 4))
    assert per_frame[1] > per_frame[0] > 0
    assert per_frame[1] > per_frame[2] > 0


def test_without_positions_or_convolutions_in_time_frames_may_come_in_any_order():
    unet = fill(UNet3D(replace(TINY, temporal_convolution=False)))
    inputs, order = call(TINY, size=(4, 4, 6)), [2, 0, 3, 1]
    shuffled = run(unet, inputs | {"x": inputs["x"][:, :, order]})
    assert difference(shuffled, run(unet, inputs)[:, :, order]) < TOLERANCE


@pytest.mark.parametrize("config", [TINY, RELATIVE], ids=["convolutions", "relative positions"])
def test_the_order_of_frames_matters_to_networks_with_positions_or_convolutions_in_time(config):
    unet, inputs = fill(UNet3D(config)), call(config, size=(4, 4, 6))
    reverse = run(unet, inputs | {"x": inputs["x"].flip(2)})
    assert difference(reverse, run(unet, inputs).flip(2)) > 0.01


@pytest.mark.parametrize("tokens", [1, 77, 154])
def test_any_number_of_tokens_is_accepted_in_any_order(plain, tokens):
    inputs = call(plain.config, tokens=tokens)
    shuffled = inputs | {"context": inputs["context"].flip(1)}
    assert difference(run(plain, shuffled), run(plain, inputs)) < TOLERANCE
    doubled = inputs | {"context": inputs["context"].repeat(1, 2, 1)}  # twice the same tokens: the same mean
    assert difference(run(plain, doubled), run(plain, inputs)) < TOLERANCE


@pytest.mark.parametrize("size", [(1, 8, 8), (2, 1, 1), (3, 9, 13), (1, 5, 2), (17, 3, 4)])
def test_any_size_and_length_is_accepted(unet, size):
    inputs = call(unet.config, size=size)
    output = run(unet, inputs)
    assert output.shape == (2, 4, *size)
    assert output.isfinite().all()


def test_a_guided_step_at_an_odd_size_with_everything_per_frame():
    unet, inputs = fill(UNet3D(IMAGES)), call(IMAGES, batch=1, size=(3, 7, 5))
    texts = normal("texts", (2, 3, 5, IMAGES.context_dim))
    images = normal("images", (2, 3, 4, IMAGES.context_dim))
    timesteps = torch.tensor([[10.0, 400.0, 900.0]])
    together = run(unet, inputs | {"timesteps": timesteps, "context": texts, "image_context": images})
    for i in range(2):
        alone = inputs | {"timesteps": timesteps, "context": texts[i : i + 1], "image_context": images[i : i + 1]}
        assert difference(together[i : i + 1], run(unet, alone)) < TOLERANCE


def test_inputs_are_not_changed(unet):
    inputs = call(unet.config)
    before = {name: value.clone() for name, value in inputs.items()}
    control = {
        "middle": [normal("m", (6, 64, 3, 2))],
        "output": [normal("d", (6, 32, 3, 2)), normal("o", (6, 64, 3, 2))],
    }
    kept = {place: [value.clone() for value in values] for place, values in control.items()}
    weights = {name: value.clone() for name, value in unet.state_dict().items()}
    first = run(unet, inputs | {"control": control})
    assert torch.equal(first, run(unet, inputs | {"control": control}))
    assert all(torch.equal(inputs[name], value) for name, value in before.items())
    assert all(torch.equal(a, b) for place in kept for a, b in zip(control[place], kept[place], strict=True))
    assert all(torch.equal(unet.state_dict()[name], value) for name, value in weights.items())


def test_residuals_of_another_dtype_are_added_in_the_dtype_of_the_model(unet):
    half, inputs = fill(UNet3D(unet.config)).bfloat16(), cast(call(unet.config), torch.bfloat16)
    residual = normal("m", (6, 64, 3, 2))
    out = run(half, inputs | {"control": {"middle": [residual]}})
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, run(half, inputs | {"control": {"middle": [residual.bfloat16()]}}))
    assert not torch.equal(out, run(half, inputs))


def test_the_layout_of_the_input_in_memory_does_not_matter(plain):
    inputs = call(plain.config)
    strided = inputs["x"].permute(4, 0, 2, 3, 1).contiguous().permute(1, 4, 2, 3, 0)
    assert not strided.is_contiguous()
    assert difference(run(plain, inputs | {"x": strided}), run(plain, inputs)) < TOLERANCE


def test_results_with_and_without_gradients_are_equal(unet):
    inputs = call(unet.config)
    assert difference(unet(**inputs).detach(), run(unet, inputs)) < TOLERANCE


@pytest.mark.slow
def test_gradients_reach_every_weight_and_equal_finite_differences(unet):
    trained = fill(UNet3D(unet.config)).double().requires_grad_(True)
    inputs = {name: value.double() for name, value in call(unet.config, batch=1, size=(2, 4, 4)).items()}
    target = normal("target", (1, 4, 2, 4, 4)).double()

    def loss() -> torch.Tensor:
        return (trained(**inputs) * target).mean()

    loss().backward()
    for name, weight in trained.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
        assert weight.grad.abs().max() > 0 or _indifferent(name), name
    direction = {name: normal(name, tuple(w.shape)).double() for name, w in trained.named_parameters()}
    slope = sum(float((w.grad * direction[name]).sum()) for name, w in trained.named_parameters())
    step, values = 1e-6, []
    with torch.no_grad():
        for sign in (1, -2):
            for name, weight in trained.named_parameters():
                weight.add_(direction[name], alpha=sign * step)
            values.append(float(loss()))
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=1e-4, abs=1e-7)


def _indifferent(name: str) -> bool:
    """Weights that by their nature may not count: of attention over a single token or distances that do not occur."""
    return "relative_position" in name


@pytest.mark.slow
def test_a_network_learns():
    unet = fill(UNet3D(TINY)).train().requires_grad_(True)
    inputs, target = call(TINY), normal("target", (2, 4, 3, 6, 4))
    optimiser = torch.optim.Adam(unet.parameters(), lr=2e-3)
    losses = []
    for _ in range(8):
        loss = nn.functional.mse_loss(unet(**inputs), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_half_precision_results_stay_near_those_of_single_precision(unet, dtype, tolerance):
    inputs = call(unet.config)
    expected = run(unet, inputs)
    half = fill(UNet3D(unet.config)).to(dtype)
    result = run(half, cast(inputs, dtype))
    assert result.dtype == dtype
    assert difference(result.float(), expected) < tolerance


def test_every_weight_is_in_a_layer_of_the_given_operations(unet):
    made = []
    names = ("Linear", "Conv2d", "GroupNorm", "LayerNorm", "Embedding")

    def layer(name: str) -> type[nn.Module]:
        class Layer(getattr(nn, name)):
            def __init__(self, *args, **kwargs) -> None:
                super().__init__(*args, **kwargs)
                made.append(self)

        return Layer

    network = UNet3D(unet.config, operations=SimpleNamespace(**{name: layer(name) for name in names}), device="meta")
    owners = [module for module in network.modules() if next(module.parameters(recurse=False), None) is not None]
    assert {id(module) for module in owners} == {id(module) for module in made}
    assert not any(list(module.children()) for module in owners)
    assert not list(network.buffers())
    assert {name: value.shape for name, value in network.state_dict().items()} == {
        name: value.shape for name, value in unet.state_dict().items()
    }


def test_layers_may_cast_their_weights_in_their_own_forward(unet):
    """A host keeps weights in another dtype and casts them in its layers' forward, so other code must not read them."""

    def layer(name: str) -> type[nn.Module]:
        class Layer(getattr(nn, name)):
            def forward(self, x: torch.Tensor, *args) -> torch.Tensor:
                kept = dict(self.named_parameters(recurse=False))
                dtype = x.dtype if x.is_floating_point() else torch.float32
                try:
                    for key, value in kept.items():
                        self._parameters[key] = value.to(dtype)
                    return super().forward(x, *args)
                finally:
                    self._parameters.update(kept)

        return Layer

    names = ("Linear", "Conv2d", "GroupNorm", "LayerNorm", "Embedding")
    operations = SimpleNamespace(**{name: layer(name) for name in names})
    casting = UNet3D(unet.config, operations=operations, dtype=torch.float16)
    casting.load_state_dict(unet.state_dict())
    rounded = UNet3D(unet.config)
    rounded.load_state_dict({name: value.half().float() for name, value in unet.state_dict().items()})
    inputs = call(unet.config)
    assert difference(run(casting.eval(), inputs), run(rounded.eval(), inputs)) < TOLERANCE


def test_another_attention_function_is_used_everywhere(unet):
    calls = []

    def attention(q, k, v, heads, options=None):
        calls.append(q.shape)
        q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
        weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
        return (weights @ v).transpose(1, 2).flatten(2)

    other = UNet3D(unet.config, attention=attention).eval()
    other.load_state_dict(unet.state_dict())
    inputs = call(unet.config)
    assert difference(run(other, inputs), run(unet, inputs)) < TOLERANCE
    spatial = 1 + 2 * sum(unet.config.attention_levels) + 1  # down, middle, up: two at one block a level
    assert len(calls) >= 2 * spatial


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"x": (2, 3, 3, 6, 4)}, "latent"),
        ({"x": (2, 4, 6, 4)}, "latent"),
        ({"context": (2, 5, 25)}, "text embedding"),
        ({"context": (2, 4, 5, 24)}, "text embedding"),
        ({"context": (3, 5, 24)}, "text embedding"),
        ({"timesteps": (3,)}, "timesteps"),
        ({"timesteps": (2, 4)}, "timesteps"),
        ({"guidance": (2,)}, "guidance"),
    ],
)
def test_an_error_about_a_wrong_shape_says_what_is_wanted(plain, wrong, words):
    inputs = call(plain.config) | {name: normal(name, shape) for name, shape in wrong.items()}
    with pytest.raises(ValueError, match=words):
        run(plain, inputs)
