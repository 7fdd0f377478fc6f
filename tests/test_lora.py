"""Every LoRA format gives W + strength * alpha / rank * up @ down, for the weights that it names."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from t2v_models.__main__ import main
from t2v_models.builtin_model import BUILT_IN_FOLDER
from t2v_models.checkpoints import (
    LAYOUTS,
    apply_loras,
    load_unet,
    open_checkpoint,
    read_lora,
)
from t2v_models.checkpoints.convert import convert
from t2v_models.checkpoints.lora_lists import diffusers_order, videocrafter_order
from t2v_models.checkpoints.text_encoder import expected_shapes
from t2v_models.errors import T2VError
from t2v_models.unet import UNet3D

from .support.checkpoints import SMALL, TEXT, in_layout, random_tensors, unet_weights

RANK = 3
SPATIAL = "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
TEMPORAL = "middle_block.temporal.transformer_blocks.0.attn1.to_out.0.weight"
CONV = "input_blocks.1.0.in_layers.2.weight"
TEMPORAL_CONV = "middle_block.2.temporal_conv.conv2.3.weight"
TARGETS = (SPATIAL, TEMPORAL, CONV, TEMPORAL_CONV, "init_attn.proj_in.weight", "input_blocks.2.0.op.weight",
           "output_blocks.1.1.conv.weight")  # fmt: skip

Pairs = dict[str, tuple[torch.Tensor, torch.Tensor]]


def pairs(targets: tuple[str, ...] = TARGETS, layout: str = "diffusers", seed: int = 7) -> Pairs:
    """Canonical name -> (up, down), convolutions with the kernel in `down`."""
    result = {}
    for i, name in enumerate(targets):
        shape = LAYOUTS[layout].reshape(name, tuple(unet_weights()[name].shape))
        ones = (1,) * (len(shape) - 2)
        made = random_tensors({"up": (shape[0], RANK, *ones), "down": (RANK, *shape[1:])}, seed + i)
        result[name] = (made["up"], made["down"])
    return result


def expected(made: Pairs, scale: float) -> dict[str, torch.Tensor]:
    weights = dict(unet_weights())
    for name, (up, down) in made.items():
        weights[name] = weights[name] + scale * (up.flatten(1) @ down.flatten(1)).reshape(weights[name].shape)
    return weights


def close(ours: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return set(ours) == set(wanted) and all(torch.allclose(ours[n], wanted[n], atol=1e-6) for n in wanted)


def names(layout: str) -> dict[str, str]:
    return {ours: theirs.removesuffix(".weight") for ours, theirs in LAYOUTS[layout].names(SMALL).items()}


def peft(made: Pairs, layout: str) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, (up, down) in made.items():
        base = f"base_model.model.unet.{names(layout)[name]}"
        tensors[f"{base}.lora_A.default.weight"], tensors[f"{base}.lora_B.default.weight"] = down, up
    return tensors


def diffusers_new(made: Pairs, layout: str) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, (up, down) in made.items():
        base = f"unet.{names(layout)[name]}"
        tensors[f"{base}.lora_A.weight"], tensors[f"{base}.lora_B.weight"] = down, up
    return tensors


def diffusers_old(made: Pairs, layout: str) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, (up, down) in made.items():
        base = f"unet.{names(layout)[name]}"
        for to in ("to_q", "to_k", "to_v", "to_out"):
            if base.endswith((f".{to}", f".{to}.0")):
                base = base.removesuffix(".0").removesuffix(to) + f"processor.{to}_lora"
                break
        else:
            base += ".lora"
        tensors[f"{base}.down.weight"], tensors[f"{base}.up.weight"] = down, up
    return tensors


def kohya(made: Pairs, layout: str, alpha: float | None = 1.5) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, (up, down) in made.items():
        base = "lora_unet_" + names(layout)[name].replace(".", "_")
        tensors[f"{base}.lora_down.weight"], tensors[f"{base}.lora_up.weight"] = down, up
        if alpha is not None:
            tensors[f"{base}.alpha"] = torch.tensor(alpha)
    return tensors


@pytest.mark.parametrize("layout", ["diffusers", "modelscope", "videocrafter", "native"])
@pytest.mark.parametrize(
    ("write", "scale"), [(peft, 1.0), (diffusers_new, 1.0), (diffusers_old, 1.0), (kohya, 1.5 / RANK)]
)
def test_a_named_lora_is_merged(tmp_path: Path, layout: str, write: Callable, scale: float) -> None:
    made = pairs(layout=layout)
    save_file(write(made, layout), tmp_path / "lora.safetensors")
    weights = {name: tensor.clone() for name, tensor in unet_weights().items()}
    (report,) = apply_loras(weights, [(tmp_path / "lora.safetensors", 0.7)])
    assert report.applied == len(TARGETS)
    assert report.skipped == ()
    assert close(weights, expected(made, 0.7 * scale))


@pytest.mark.parametrize("order", ["videocrafter", "diffusers", "diffusers, feed-forward between"])
@pytest.mark.parametrize("form", ["pt", "safetensors"])
def test_a_list_without_names_is_merged_in_the_order_of_the_references_modules(
    tmp_path: Path, order: str, form: str
) -> None:
    walk = (
        videocrafter_order(SMALL) if order == "videocrafter" else diffusers_order(SMALL, ff_last=order == "diffusers")
    )
    made = {}
    for i, (name, shape) in enumerate(walk):
        ones = (1,) * (len(shape) - 2)
        tensors = random_tensors({"up": (shape[0], RANK, *ones), "down": (RANK, *shape[1:])}, i)
        made[name] = (tensors["up"], tensors["down"])
    flat = [half for pair in made.values() for half in pair]
    path = tmp_path / f"unet_lora.{form}"
    if form == "pt":
        torch.save(flat, path)
    else:
        save_file({f"unet:{i // 2}:{'down' if i % 2 else 'up'}": half for i, half in enumerate(flat)}, path)
    unet = UNet3D(SMALL)
    unet.load_state_dict(unet_weights())
    (report,) = apply_loras(unet, [(path, 0.5)])
    assert report.applied == len(walk)
    assert close(unet.state_dict(), expected(made, 0.5))


@pytest.mark.parametrize("kind", ["attention", "Transformer2DModel", "TransformerTemporalModel"])
def test_a_list_of_some_classes_of_modules_is_recognised(tmp_path: Path, kind: str) -> None:
    theirs = names("diffusers")
    wanted = {
        "attention": lambda n: ".attn1." in n or ".attn2." in n or ".ff.net.0." in n,
        "Transformer2DModel": lambda n: ".attentions." in n,
        "TransformerTemporalModel": lambda n: ".temp_attentions." in n or n.startswith("transformer_in."),
    }[kind]
    targets = tuple(name for name, _ in diffusers_order(SMALL) if wanted(theirs[name]))
    made = pairs(targets)
    torch.save([half for pair in made.values() for half in pair], tmp_path / "lora.pt")
    weights = {name: tensor.clone() for name, tensor in unet_weights().items()}
    apply_loras(weights, [(tmp_path / "lora.pt", 1.0)])
    assert close(weights, expected(made, 1.0))


def stable_lora_delta(a: torch.Tensor, b: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Compute the change as stable_lora does: views of B @ A, averaged for temporal convolutions."""
    if len(shape) == 2:
        return b @ a
    out, inside, kernel = shape[:3]
    if len(shape) == 5:
        return (b @ a).view(out, inside, kernel, kernel, 1).mean(dim=-2, keepdim=True)
    return (b @ a).view(shape)


def test_convolutions_are_merged_as_in_stable_lora(tmp_path: Path) -> None:
    tensors, wanted = {}, dict(unet_weights())
    theirs = names("modelscope")
    for i, name in enumerate(TARGETS):
        shape = LAYOUTS["diffusers"].reshape(name, tuple(wanted[name].shape))
        kernel = shape[2] if len(shape) > 2 else 1
        made = random_tensors({"a": (RANK * kernel, shape[1] * kernel), "b": (shape[0] * kernel, RANK * kernel)}, i)
        tensors[f"{theirs[name]}.lora_A"], tensors[f"{theirs[name]}.lora_B"] = made["a"], made["b"]
        wanted[name] = wanted[name] + 0.3 * stable_lora_delta(made["a"], made["b"], shape).reshape(wanted[name].shape)
    save_file(tensors, tmp_path / "webui_lora.safetensors")
    lora = read_lora(tmp_path / "webui_lora.safetensors", SMALL)
    assert lora.format == "stable_lora"
    weights = {name: tensor.clone() for name, tensor in unet_weights().items()}
    apply_loras(weights, [(lora, 0.3)])
    assert close(weights, wanted)


def test_several_loras_are_added_each_with_its_strength(tmp_path: Path) -> None:
    one, two = pairs(seed=1), pairs((SPATIAL, TEMPORAL), seed=50)
    save_file(diffusers_new(one, "diffusers"), tmp_path / "one.safetensors")
    save_file(kohya(two, "diffusers", None), tmp_path / "two.safetensors")
    weights = {name: tensor.clone() for name, tensor in unet_weights().items()}
    apply_loras(weights, [(tmp_path / "one.safetensors", 0.5), (tmp_path / "two.safetensors", -2.0)])
    wanted = expected(one, 0.5)
    for name, (up, down) in two.items():
        wanted[name] = wanted[name] - 2 * up @ down
    assert close(weights, wanted)


def test_strength_zero_and_opposite_strengths_change_nothing(tmp_path: Path) -> None:
    save_file(diffusers_new(pairs(), "diffusers"), tmp_path / "lora.safetensors")
    weights = {name: tensor.clone() for name, tensor in unet_weights().items()}
    apply_loras(weights, [(tmp_path / "lora.safetensors", s) for s in (0.0, 1.0, -1.0)])
    assert close(weights, unet_weights())


def test_a_decomposed_convolution_has_its_kernel_in_the_middle(tmp_path: Path) -> None:
    out, inside = unet_weights()[CONV].shape[:2]
    made = random_tensors({"up": (out, RANK, 1, 1), "mid": (RANK, RANK, 3, 3), "down": (RANK, inside, 1, 1)})
    base = "lora_unet_" + names("diffusers")[CONV].replace(".", "_")
    save_file({f"{base}.lora_{half}.weight": tensor for half, tensor in made.items()}, tmp_path / "lora.safetensors")
    weights = {name: tensor.clone() for name, tensor in unet_weights().items()}
    apply_loras(weights, [(tmp_path / "lora.safetensors", 1.0)])
    x = torch.randn(1, inside, 5, 5)
    steps = torch.nn.functional.conv2d(x, made["down"])
    steps = torch.nn.functional.conv2d(torch.nn.functional.conv2d(steps, made["mid"], padding=1), made["up"])
    whole = torch.nn.functional.conv2d(x, weights[CONV] - unet_weights()[CONV], padding=1)
    assert torch.allclose(whole, steps, atol=1e-5)


def test_pefts_alpha_is_read_from_beside_the_file(tmp_path: Path) -> None:
    made = pairs()
    save_file(peft(made, "diffusers"), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": 2 * RANK}))
    weights = {name: tensor.clone() for name, tensor in unet_weights().items()}
    apply_loras(weights, [(tmp_path / "adapter_model.safetensors", 1.0)])
    assert close(weights, expected(made, 2.0))


def test_rslora_is_merged_and_alphas_of_single_modules_are_refused(tmp_path: Path) -> None:
    made = pairs()
    save_file(peft(made, "diffusers"), tmp_path / "adapter_model.safetensors")
    config = {"r": RANK, "lora_alpha": RANK, "use_rslora": True}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    weights = {name: tensor.clone() for name, tensor in unet_weights().items()}
    apply_loras(weights, [(tmp_path / "adapter_model.safetensors", 1.0)])
    assert close(weights, expected(made, RANK**0.5))
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"alpha_pattern": {"to_q": 4}}))
    with pytest.raises(T2VError, match="alpha_pattern"):
        apply_loras(weights, [(tmp_path / "adapter_model.safetensors", 1.0)])


def test_a_lora_is_merged_into_a_model_that_needs_its_config_json(tmp_path: Path) -> None:
    config = open_checkpoint(BUILT_IN_FOLDER).config
    shape = open_checkpoint(BUILT_IN_FOLDER).lazy_unet()["middle_block.1.transformer_blocks.0.attn1.to_q.weight"].shape
    name = "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q"
    tensors = {"lora_up.weight": torch.randn(shape[0], 2), "lora_down.weight": torch.randn(2, shape[1])}
    save_file({f"{name}.{half}": tensor for half, tensor in tensors.items()}, tmp_path / "lora.safetensors")
    convert(BUILT_IN_FOLDER, tmp_path / "out", "diffusers", loras=[(tmp_path / "lora.safetensors", 1.0)])
    assert open_checkpoint(tmp_path / "out").config == config


def test_half_precision_weights_are_merged_in_float32(tmp_path: Path) -> None:
    made = pairs()
    save_file(diffusers_new({n: (u.half(), d.half()) for n, (u, d) in made.items()}, "diffusers"), tmp_path / "l.bin")
    weights = {name: tensor.half() for name, tensor in unet_weights().items()}
    apply_loras(weights, [(tmp_path / "l.bin", 1.0)])
    halves = {n: (u.half().float(), d.half().float()) for n, (u, d) in made.items()}
    for name, (up, down) in halves.items():
        base = unet_weights()[name].half().float()
        wanted = (base + (up.flatten(1) @ down.flatten(1)).reshape(base.shape)).half()
        assert (weights[name] - wanted).abs().max() <= 1e-3
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}


def test_turbos_list_gives_a_model_with_embedded_guidance(tmp_path: Path) -> None:
    import dataclasses

    turbo = dataclasses.replace(SMALL, guidance_dim=256)
    flat = []
    for i, (_, shape) in enumerate(diffusers_order(turbo)):
        ones = (1,) * (len(shape) - 2)
        made = random_tensors({"up": (shape[0], RANK, *ones), "down": (RANK, *shape[1:])}, i)
        flat += [made["up"], made["down"]]
    torch.save(flat, tmp_path / "unet_lora.pt")
    weights = {name: tensor.clone() for name, tensor in unet_weights().items()}
    apply_loras(weights, [(tmp_path / "unet_lora.pt", 1.0)])
    assert load_unet(weights).config == turbo
    plain = UNet3D(SMALL)
    (report,) = apply_loras(plain, [(tmp_path / "unet_lora.pt", 1.0)])
    assert report.skipped == ("time_cond_proj.weight",)
    scale = {"scale_arr": torch.full((1400,), 0.7)}  # VideoCrafter2 has it, and T2V-Turbo has not
    torch.save(
        {"state_dict": in_layout("videocrafter", prefix="model.diffusion_model.") | scale}, tmp_path / "vc2.ckpt"
    )
    loras = [(tmp_path / "unet_lora.pt", 1.0)]
    convert(tmp_path / "vc2.ckpt", tmp_path / "turbo.ckpt", "videocrafter", loras=loras)
    assert open_checkpoint(tmp_path / "turbo.ckpt").family.scale_base is None


def test_a_conversion_merges_loras(tmp_path: Path) -> None:
    made = pairs()
    save_file(kohya(made, "diffusers"), tmp_path / "lora.safetensors")
    save_file(dict(unet_weights()), tmp_path / "model.safetensors")
    command = ["convert", str(tmp_path / "model.safetensors"), str(tmp_path / "out.pth"), "--layout", "modelscope"]
    assert main([*command, "--lora", f"{tmp_path / 'lora.safetensors'}=0.5"]) == 0
    assert close(open_checkpoint(tmp_path / "out.pth").unet(), expected(made, 0.25))
    assert main([*command[:2], str(tmp_path / "b.pth"), *command[3:], "--lora", "lora.pt=much"]) == 2
    assert main([*command[:2], str(tmp_path / "c.pth"), *command[3:], "--lora", "lora.pt=nan"]) == 2


def test_a_pairs_change_is_alpha_over_rank_times_its_product(tmp_path: Path) -> None:
    made = pairs()
    save_file(kohya(made, "diffusers"), tmp_path / "lora.safetensors")
    for name, pair in read_lora(tmp_path / "lora.safetensors", SMALL).unet.items():
        wanted = 0.5 * made[name][0].flatten(1) @ made[name][1].flatten(1)
        assert torch.allclose(pair.delta(unet_weights()[name].shape).flatten(1), wanted, atol=1e-6)


def test_changes_of_the_unet_and_the_text_encoder_are_separated(tmp_path: Path) -> None:
    made = {}
    for name, shape in expected_shapes(TEXT).items():
        if name.endswith("q_proj.weight"):
            base = "lora_te_" + name.removesuffix(".weight").replace(".", "_")
            made |= random_tensors({f"{base}.lora_up.weight": (shape[0], 2), f"{base}.lora_down.weight": (2, shape[1])})
    save_file(made | kohya(pairs(), "diffusers"), tmp_path / "lora.safetensors")
    lora = read_lora(tmp_path / "lora.safetensors", SMALL)
    assert set(lora.unet) == set(TARGETS)
    assert set(lora.text_encoder) == {n for n in expected_shapes(TEXT) if n.endswith("q_proj.weight")}


def test_a_lora_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"
    other = {"lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": torch.zeros(9, 2),
             "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": torch.zeros(2, 9)}  # fmt: skip
    save_file(other, path)
    with pytest.raises(T2VError, match=r"lora\.safetensors: none of its 1 keys.*double_blocks"):
        apply_loras(dict(unet_weights()), [(path, 1.0)])
    wrong = {n: (torch.zeros(up.shape[0] + 8, *up.shape[1:]), down) for n, (up, down) in pairs().items()}
    save_file(diffusers_new(wrong, "diffusers"), path)
    with pytest.raises(T2VError, match=r"lora\.safetensors.*another one"):
        apply_loras(dict(unet_weights()), [(path, 1.0)])
    torch.save([torch.zeros(4, 2), torch.zeros(2, 4)], path)
    with pytest.raises(T2VError, match="fits the modules of no known network"):
        apply_loras(dict(unet_weights()), [(path, 1.0)])


def test_keys_that_do_not_fit_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tensors = diffusers_new(pairs(), "diffusers")
    tensors["unet.down_blocks.9.attentions.0.proj_in.lora_A.weight"] = torch.zeros(2, 8)
    tensors["unet.down_blocks.9.attentions.0.proj_in.lora_B.weight"] = torch.zeros(8, 2)
    save_file(tensors, tmp_path / "lora.safetensors")
    with caplog.at_level(logging.WARNING):
        (report,) = apply_loras(dict(unet_weights()), [(tmp_path / "lora.safetensors", 0.0)])
    assert report.skipped == ("unet.down_blocks.9.attentions.0.proj_in",)
    assert "7 keys applied, 1 do not fit" in caplog.text


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"conv_in.weight": torch.zeros(3, 3)}, "no LoRA"),
        ({"unet.conv_in.lora_A.weight": torch.zeros(2, 4)}, "only one of its two halves"),
        ({"lora_unet_conv_in.hada_w1_a": torch.zeros(2, 2)}, "LoHa"),
        ({"a.lora_A.weight": torch.zeros(2, 4), "a.lora_B.weight": torch.zeros(4, 3)}, "do not fit each other"),
        ({"a.lora_A.weight": torch.zeros(2), "a.lora_B.weight": torch.zeros(2)}, "do not fit each other"),
    ],
)
def test_an_incomplete_lora_is_refused(tmp_path: Path, tensors: dict[str, torch.Tensor], said: str) -> None:
    save_file(tensors, tmp_path / "lora.safetensors")
    with pytest.raises(T2VError, match=said) as caught:
        read_lora(tmp_path / "lora.safetensors", SMALL)
    assert str(tmp_path / "lora.safetensors") in str(caught.value)


def test_a_lora_opened_as_a_model_is_refused(tmp_path: Path) -> None:
    save_file(diffusers_new(pairs(), "diffusers"), tmp_path / "lora.safetensors")
    with pytest.raises(T2VError, match="a LoRA"):
        load_unet(tmp_path / "lora.safetensors")
