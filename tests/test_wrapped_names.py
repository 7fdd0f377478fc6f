"""Wrappers of trainers and compilers are taken off the names of models and LoRAs, wherever they stand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from t2v_models.checkpoints import load_unet, open_checkpoint, read_lora
from t2v_models.checkpoints.wrappers import without_wrappers

from .support.checkpoints import SMALL, all_in_one, in_layout, same, text_weights, unet_weights, vae_weights
from .test_lora import TARGETS, diffusers_new, kohya, pairs

INSIDE = (
    "_orig_mod.",
    "_checkpoint_wrapped_module.",
    "_fsdp_wrapped_module.",
    "_forward_module.",
    "module.",
    "base_layer.",
)


def at_start(name: str, wrapper: str) -> str:
    return wrapper + name


def between_parts(name: str, wrapper: str) -> str:
    first, _, rest = name.partition(".")
    return f"{first}.{wrapper}{rest}" if rest else wrapper + name


def before_the_last_part(name: str, wrapper: str) -> str:
    first, _, rest = name.rpartition(".")
    return f"{first}.{wrapper}{rest}" if first else wrapper + name


def twice(name: str, wrapper: str) -> str:
    return wrapper + wrapper + between_parts(name, wrapper)


PLACES = (at_start, between_parts, before_the_last_part, twice)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("wrapper", INSIDE)
@pytest.mark.parametrize("layout", ["diffusers", "videocrafter"])
def test_a_model_with_wrapped_names_loads(layout: str, wrapper: str, place: Callable[[str, str], str]) -> None:
    tensors = {place(name, wrapper): tensor for name, tensor in in_layout(layout).items()}
    assert same(load_unet(tensors).state_dict(), unet_weights())


@pytest.mark.parametrize("wrapper", INSIDE)
def test_all_parts_of_a_wrapped_file_are_found(tmp_path: Path, wrapper: str) -> None:
    torch.save(
        {"state_dict": {before_the_last_part(n, wrapper): t for n, t in all_in_one().items()}}, tmp_path / "m.ckpt"
    )
    checkpoint = open_checkpoint(tmp_path / "m.ckpt")
    assert same(checkpoint.unet(), unet_weights())
    assert same(checkpoint.vae(), vae_weights())
    assert same(checkpoint.text_encoder(), text_weights())


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("wrapper", [*INSIDE, "state_dict.", "model.", "ema.", "network.", "model_state_dict."])
def test_a_lora_with_wrapped_names_is_read(tmp_path: Path, wrapper: str, place: Callable[[str, str], str]) -> None:
    if wrapper not in INSIDE and place is not at_start:
        place = at_start
    plain = diffusers_new(pairs(), "diffusers")
    save_file({place(name, wrapper): tensor for name, tensor in plain.items()}, tmp_path / "lora.safetensors")
    lora = read_lora(tmp_path / "lora.safetensors", SMALL)
    assert set(lora.unet) == set(TARGETS)
    assert lora.unknown == ()


@pytest.mark.parametrize("entry", ["state_dict", "model", "lora", "network", "unet_lora", "lora_weights"])
def test_a_lora_inside_a_dictionary_is_read(tmp_path: Path, entry: str) -> None:
    torch.save({"epoch": 3, entry: kohya(pairs(), "diffusers")}, tmp_path / "lora.ckpt")
    assert set(read_lora(tmp_path / "lora.ckpt", SMALL).unet) == set(TARGETS)


@pytest.mark.parametrize("wrapper", ["_orig_mod_", "_checkpoint_wrapped_module_", "_fsdp_wrapped_module_", "module_"])
def test_a_lora_whose_dots_and_wrappers_became_underscores_is_read(tmp_path: Path, wrapper: str) -> None:
    plain = kohya(pairs(), "diffusers")
    tensors = {name.replace("lora_unet_", f"lora_unet_{wrapper}"): tensor for name, tensor in plain.items()}
    save_file(tensors, tmp_path / "lora.safetensors")
    lora = read_lora(tmp_path / "lora.safetensors", SMALL)
    assert set(lora.unet) == set(TARGETS)
    assert lora.unknown == ()


def test_a_lora_of_lycoris_by_itself_is_read(tmp_path: Path) -> None:
    plain = kohya(pairs(), "diffusers")
    tensors = {name.replace("lora_unet_", "lycoris_"): tensor for name, tensor in plain.items()}
    save_file(tensors, tmp_path / "lora.safetensors")
    assert set(read_lora(tmp_path / "lora.safetensors", SMALL).unet) == set(TARGETS)


def test_of_a_lora_and_its_average_the_lora_is_read(tmp_path: Path) -> None:
    plain, average = pairs(seed=1), pairs(seed=2)
    torch.save({"ema": kohya(average, "diffusers"), "state_dict": kohya(plain, "diffusers")}, tmp_path / "lora.ckpt")
    lora = read_lora(tmp_path / "lora.ckpt", SMALL)
    assert all(torch.equal(lora.unet[name].up, up) for name, (up, _) in plain.items())


def test_names_that_only_resemble_wrappers_stay() -> None:
    names = [
        "motion_modules.0.weight",
        "motion_module.x",
        "submodule.conv.weight",
        "a.modules.b",
        "remodel.x",
        "module",
    ]
    assert list(without_wrappers(dict.fromkeys(names), around=True)) == names


def test_no_tensor_is_lost_where_names_without_wrappers_are_equal() -> None:
    tensors = {"module.conv": 1, "conv": 2, "_orig_mod.conv": 3, "module.norm": 4, "_orig_mod.norm": 5}
    assert without_wrappers(tensors) == {
        "module.conv": 1,
        "conv": 2,
        "_orig_mod.conv": 3,
        "norm": 4,
        "_orig_mod.norm": 5,
    }
