"""LoRA lists of MotionDirector are merged into the weights of the modules in whose order they were written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from t2v_models.checkpoints import apply_loras, load_unet
from t2v_models.errors import T2VError

PARTS = {"TransformerTemporalModel": ("attn1", "attn2", "ff"), "Transformer2DModel": ("attn1", "ff")}
"""MotionDirector's choice of linear layers in each class of transformers."""


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory):
    """diffusers' network of two levels, and the folder with its weights."""
    from diffusers import UNet3DConditionModel

    torch.manual_seed(0)
    unet = UNet3DConditionModel(
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=32,
        attention_head_dim=16,
        layers_per_block=1,
        norm_num_groups=8,
    )
    folder = tmp_path_factory.mktemp("reference") / "unet"
    unet.save_pretrained(folder)
    return unet, folder


def walk(unet, kind: str, parts: tuple[str, ...]):
    """(name, layer) of the linear layers of these parts, in the order of the modules."""
    for root, ancestor in unet.named_modules():
        if type(ancestor).__name__ == kind:
            for name, module in ancestor.named_modules():
                if isinstance(module, torch.nn.Linear) and any(part in name for part in parts):
                    yield f"{root}.{name}.weight", module


@pytest.mark.parametrize("first", ["with the first transformer", "without it"])
@pytest.mark.parametrize("rank", [4, 32])
@pytest.mark.parametrize("kind", PARTS)
def test_a_list_of_motiondirector_is_merged_into_the_layers_that_it_was_trained_for(
    tmp_path: Path, reference, kind: str, rank: int, first: str
) -> None:
    """As in the reference, a rank is no greater than the sides of its layer."""
    unet, folder = reference
    flat, wanted = [], dict(load_unet(folder).state_dict())
    names = load_names(folder)
    generator = torch.Generator().manual_seed(1)
    for name, layer in walk(unet, kind, PARTS[kind]):
        if first == "without it" and name.startswith("transformer_in."):
            continue
        own = min(rank, layer.in_features, layer.out_features)
        up = torch.randn(layer.out_features, own, generator=generator)
        down = torch.randn(own, layer.in_features, generator=generator)
        flat += [up, down]
        wanted[names[name]] = wanted[names[name]] + up @ down
    torch.save(flat, tmp_path / "150_unet.pt")
    loaded = load_unet(folder)
    (report,) = apply_loras(loaded, [(tmp_path / "150_unet.pt", 1.0)])
    assert report.applied == len(flat) // 2
    state = loaded.state_dict()
    assert all(torch.allclose(state[name], wanted[name], atol=1e-4) for name in wanted)


def load_names(folder: Path) -> dict[str, str]:
    """Map diffusers' names to those of `UNet3D`."""
    from t2v_models.checkpoints import LAYOUTS, open_checkpoint

    return {theirs: ours for ours, theirs in LAYOUTS["diffusers"].names(open_checkpoint(folder).config).items()}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("form", ["list", "named", "alpha"])
def test_a_lora_that_holds_no_numbers_is_named_when_it_is_read(
    tmp_path: Path, reference, form: str, value: float
) -> None:
    unet, folder = reference
    name, layer = next(iter(walk(unet, "TransformerTemporalModel", ("attn1",))))
    up, down = torch.zeros(layer.out_features, 4), torch.zeros(4, layer.in_features)
    down[2, 3] = value
    root = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
    if form == "alpha":
        down[2, 3] = 0
    named = {f"{root}.lora_up.weight": up, f"{root}.lora_down.weight": down}
    torch.save(
        {"list": [up, down], "named": named, "alpha": named | {f"{root}.alpha": torch.tensor(value)}}[form],
        tmp_path / "diverged.pt",
    )
    with pytest.raises(T2VError, match=r"diverged\.pt holds values that are no numbers"):
        apply_loras(load_unet(folder), [(tmp_path / "diverged.pt", 1.0)])


def test_a_lora_whose_sum_is_beyond_float16_is_named_and_fits_float32(tmp_path: Path, reference) -> None:
    unet, folder = reference
    name, layer = next(iter(walk(unet, "TransformerTemporalModel", ("attn1",))))
    root = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
    halves = torch.full((layer.out_features, 4), 300.0), torch.full((4, layer.in_features), 300.0)
    torch.save(
        dict(zip((f"{root}.lora_up.weight", f"{root}.lora_down.weight"), halves, strict=True)), tmp_path / "loud.pt"
    )
    with pytest.raises(T2VError, match=r"loud\.pt.*float16"):
        apply_loras(load_unet(folder, dtype=torch.float16), [(tmp_path / "loud.pt", 1.0)])
    assert apply_loras(load_unet(folder, dtype=torch.float32), [(tmp_path / "loud.pt", 1.0)])[0].applied == 1


def test_halves_whose_product_no_memory_holds_are_refused_before_they_are_multiplied(tmp_path: Path, reference) -> None:
    unet, folder = reference
    name, _ = next(iter(walk(unet, "TransformerTemporalModel", ("attn1",))))
    root = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
    halves = {
        f"{root}.lora_up.weight": torch.zeros(1_000_000, 1),
        f"{root}.lora_down.weight": torch.zeros(1, 1_000_000),
    }
    torch.save(halves, tmp_path / "vast.pt")
    with pytest.raises(T2VError, match=r"vast\.pt.*made for another one"):
        apply_loras(load_unet(folder), [(tmp_path / "vast.pt", 1.0)])
