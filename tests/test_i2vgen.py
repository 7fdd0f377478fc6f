"""I2VGen-XL's network computes what diffusers' computes, and is read from diffusers' folder and from VGen's own file."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from t2v_models import inspect, load_unet
from t2v_models.checkpoints import LAYOUTS, i2vgen, image_encoder, open_checkpoint, text_encoder, vae
from t2v_models.checkpoints.convert import convert
from t2v_models.checkpoints.tensors import as_lazy, load_all
from t2v_models.errors import T2VError
from t2v_models.image.latents import concat_latents
from t2v_models.unet import PRESETS, UNet3D
from tests.references.outputs import Outputs
from tests.references.parity import ROUNDING, TOLERANCE, difference
from tests.references.seeding import fill, normal

from .support.checkpoints import random_tensors, text_weights, vae_weights
from .support.manifests import manifests, on_meta

diffusers = pytest.importorskip("diffusers", reason="the reference class is in diffusers")

WIDTH = 32
"""Of the text embeddings."""


@pytest.fixture(scope="module")
def reference() -> Any:
    """diffusers' class with two small levels and seeded weights."""
    return fill(
        diffusers.I2VGenXLUNet(
            block_out_channels=(32, 64),
            down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
            up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
            layers_per_block=1,
            cross_attention_dim=WIDTH,
            attention_head_dim=16,
        )
    )


@pytest.fixture(scope="module")
def unet(reference: Any) -> UNet3D:
    """Ours with its weights."""
    return load_unet(reference.state_dict())


def inputs(b: int = 2, t: int = 3, size: tuple[int, int] = (10, 12), dtype: torch.dtype = torch.float32) -> dict:
    """Seeded arguments of diffusers' forward, for a batch of pictures and texts."""
    shapes = {
        "sample": (b, 4, t, *size),
        "image_latents": (b, 4, t, *size),
        "image_embeddings": (b, WIDTH),
        "encoder_hidden_states": (b, 7, WIDTH),
    }
    given = {name: normal(name, shape).to(dtype) for name, shape in shapes.items()}
    return given | {"timestep": torch.tensor([17, 801])[:b], "fps": torch.tensor([16, 8])[:b]}


def ours(unet: UNet3D, given: dict, **more: Any) -> torch.Tensor:
    """Our network's output for the arguments of diffusers'."""
    tokens = unet.image_branches.tokens(given["image_latents"][:, :, 0], given["image_embeddings"])
    x = torch.cat([given["sample"], given["image_latents"]], dim=1)
    context = given["encoder_hidden_states"]
    return unet(x, given["timestep"], context, fps=given["fps"], image_context=tokens, **more)


@pytest.mark.parametrize("size", [(10, 12), pytest.param((34, 33), marks=pytest.mark.slow)])
def test_it_computes_what_diffusers_computes(reference, unet, size):
    for dtype, tolerance in ((torch.float32, TOLERANCE), (torch.float64, ROUNDING)):
        given = inputs(size=size, dtype=dtype)
        expected = reference.to(dtype)(**given).sample
        assert difference(ours(unet.to(dtype), given), expected) < tolerance
    reference.float()
    unet.float()


def test_a_prompt_and_its_negative_share_the_latent_and_its_image(unet):
    one, other = inputs(b=1), inputs(b=1)
    other["image_embeddings"] = torch.zeros_like(other["image_embeddings"])
    other["encoder_hidden_states"] = -other["encoder_hidden_states"]
    apart = torch.cat([ours(unet, one), ours(unet, other)])
    tokens = [
        unet.image_branches.tokens(each["image_latents"][:, :, 0], each["image_embeddings"]) for each in (one, other)
    ]
    context = torch.cat([one["encoder_hidden_states"], other["encoder_hidden_states"]])
    x = torch.cat([one["sample"], one["image_latents"]], dim=1)
    together = unet(x, one["timestep"], context, fps=one["fps"], image_context=torch.cat(tokens))
    assert difference(together, apart) < TOLERANCE


def test_one_text_for_each_frame_is_the_text_of_the_clip_where_all_are_equal(unet):
    given = inputs(b=1)
    each = dict(given, encoder_hidden_states=given["encoder_hidden_states"][:, None].repeat(1, 3, 1, 1))
    assert difference(ours(unet, each), ours(unet, given)) < TOLERANCE


@pytest.mark.parametrize("part", ["local_image_concat.4", "local_temporal_encoder.ff.2", "local_image_embedding.5",
                                  "context_embedding.2", "local_temporal_encoder.attn.to_out.0"])  # fmt: skip
def test_every_branch_counts(unet, part):
    given = inputs()
    before = ours(unet, given)
    weight = unet.get_submodule(f"image_branches.{part}").weight
    weight.mul_(2)
    assert difference(ours(unet, given), before) > 10 * TOLERANCE
    weight.div_(2)


def test_tokens_of_another_width_or_number_of_rows_are_refused(unet):
    given = inputs()
    x = torch.cat([given["sample"], given["image_latents"]], dim=1)
    for tokens in (torch.zeros(2, 68, WIDTH + 1), torch.zeros(1, 68, WIDTH), torch.zeros(2, 3, 68, WIDTH)):
        with pytest.raises(T2VError, match="image tokens"):
            unet(x, given["timestep"], given["encoder_hidden_states"], image_context=tokens)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["diffusers", "modelscope", "videocrafter"])
def test_every_layout_keeps_its_weights_exactly(reference, unet, layout, tmp_path):
    reference.save_pretrained(tmp_path / "unet")
    convert(tmp_path / "unet", tmp_path / "there.safetensors", layout)
    assert inspect(tmp_path / "there.safetensors").config.image_branches
    convert(tmp_path / "there.safetensors", tmp_path / "back", "diffusers")
    back = load_unet(tmp_path / "back").state_dict()
    assert all(torch.equal(back[name], weight) for name, weight in unet.state_dict().items())
    again = diffusers.I2VGenXLUNet.from_pretrained(tmp_path / "back" / "unet")
    assert all(torch.equal(again.state_dict()[name], weight) for name, weight in reference.state_dict().items())


def test_strength_0_leaves_the_tokens_out_and_1_changes_nothing(unet):
    given = inputs()
    x = torch.cat([given["sample"], given["image_latents"]], dim=1)
    alone = unet(x, given["timestep"], given["encoder_hidden_states"], fps=given["fps"])
    assert torch.equal(ours(unet, given, options={"image_strength": 0}), alone)
    assert torch.equal(ours(unet, given, options={"image_strength": 1.0}), ours(unet, given))
    assert not torch.equal(ours(unet, given, options={"image_strength": 0.5}), ours(unet, given))


def test_vgens_own_file_computes_what_vgens_own_network_computed(tmp_path):
    """Its projections are fused, and its network adds the branch of the image latents twice."""
    recording = Outputs.load("vgen")
    torch.save({"state_dict": recording.state_dict(), "step": 854500}, tmp_path / "i2vgen_xl_00854500.pth")
    assert inspect(tmp_path / "i2vgen_xl_00854500.pth").layout == "modelscope"
    network = load_unet(tmp_path / "i2vgen_xl_00854500.pth")
    picture = normal("image", (2, 4, 8, 6))
    tokens = network.image_branches.tokens(picture, normal("embedding", (2, 1, 1024))[:, 0])
    x = torch.cat([normal("x", (2, 4, 3, 8, 6)), concat_latents(picture, None, 3, "ramp")], dim=1)
    timesteps, fps = torch.tensor([20, 981]), torch.tensor([16, 8])
    output = network(x, timesteps, normal("context", (2, 7, 1024)), fps=fps, image_context=tokens)
    assert difference(output, recording.calls["output"]) < TOLERANCE
    convert(tmp_path / "i2vgen_xl_00854500.pth", tmp_path / "again.pth", "modelscope")
    again, weights = torch.load(tmp_path / "again.pth", weights_only=True), recording.state_dict()
    assert set(again) == set(weights)
    assert all(torch.equal(again[name], weight) for name, weight in weights.items())


def test_vgens_published_file_is_recognised_and_survives_the_way_there_and_back():
    shapes = manifests()["i2vgen-xl-vgen"]
    checkpoint = open_checkpoint(on_meta(shapes, prefix="state_dict."))
    assert checkpoint.family.name == "i2vgen-xl"
    assert checkpoint.info.layout == "modelscope"
    assert checkpoint.config == PRESETS["i2vgen-xl"]
    names = LAYOUTS["modelscope"].from_canonical(checkpoint.lazy_unet(), checkpoint.config)
    assert {name: tensor.shape for name, tensor in i2vgen.to_vgen(names).items()} == shapes


@pytest.mark.parametrize("layers", [23, 24])
def test_the_text_encoder_ends_before_clips_last_block(layers):
    """diffusers' folder has all 24 blocks, and its pipeline takes the output of the 23rd."""
    text = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": layers, "vocab_size": 49408}
    shapes = text_encoder.expected_shapes(text | {"max_position_embeddings": 77})
    tensors = on_meta(manifests()["i2vgen-xl"], prefix="unet.") | on_meta(shapes, prefix="text_encoder.")
    assert open_checkpoint(tensors).text_encoder_config()["num_hidden_layers"] == 23
    alone = open_checkpoint(on_meta(shapes))
    assert alone.text_encoder_config()["num_hidden_layers"] == layers


def test_vgens_folder_gives_all_parts_of_the_model(tmp_path):
    """Its UNet, the whole of CLIP, whose image encoder it needs, and the VAE in Stable Diffusion's checkpoint."""
    torch.save({"state_dict": Outputs.load("vgen").state_dict(), "step": 854500}, tmp_path / "i2vgen_xl_00854500.pth")
    vision = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_channels": 3, "patch_size": 14,
              "image_size": 28, "projection_dim": 32, "architectures": ["CLIPVisionModelWithProjection"]}  # fmt: skip
    clip = text_encoder.to_openclip(as_lazy(text_weights()))
    clip |= image_encoder.to_openclip(as_lazy(random_tensors(image_encoder.expected_shapes(vision))))
    torch.save(load_all(clip), tmp_path / "open_clip_pytorch_model.bin")
    first_stage = {
        f"first_stage_model.{name}": each.load() for name, each in vae.to_ldm(as_lazy(vae_weights())).items()
    }
    torch.save({"state_dict": first_stage}, tmp_path / "v2-1_512-ema-pruned.ckpt")
    checkpoint = open_checkpoint(tmp_path, family="i2vgen-xl")
    assert {"unet", "vae", "text_encoder", "image_encoder"} <= set(checkpoint.info.parts)
    assert checkpoint.image_encoder()["visual_projection.weight"].shape == (32, 64)
    schedule = {"prediction_type": "v_prediction", "beta_schedule": "squaredcos_cap_v2", "rescale_betas_zero_snr": True,
                "timestep_spacing": "leading", "steps_offset": 1, "set_alpha_to_one": True, "clip_sample": False}  # fmt: skip
    assert schedule.items() <= checkpoint.scheduler_config().items()
