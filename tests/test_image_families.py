"""Image-to-video models whose tensors do not tell their family are recognised by name, chosen, or said to be unclear."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from t2v_models.__main__ import main
from t2v_models.checkpoints import inspect, open_checkpoint
from t2v_models.checkpoints.convert import convert
from t2v_models.checkpoints.tensors import LazyTensor
from t2v_models.errors import T2VError
from t2v_models.families import FAMILIES
from t2v_models.family_matching import family_called, family_for, possible_families
from t2v_models.image.resampler import ResamplerConfig, resampler_state
from t2v_models.unet import PRESETS

from .support.checkpoints import SMALL, all_in_one, image_parts
from .support.manifests import manifests, on_meta

UNET = "model.diffusion_model."
SHARED = PRESETS["dynamicrafter-512"]


def names(families: list) -> list[str]:
    return [family.name for family in families]


@pytest.mark.parametrize(
    ("published", "family"),
    [
        ("Doubiiu/DynamiCrafter_512_Interp", "dynamicrafter-512-interp"),
        ("dynamicrafter_512_interp_fp16_pruned.safetensors", "dynamicrafter-512-interp"),
        ("tooncrafter_512_interp-pruned-fp16.safetensors", "tooncrafter-512"),
        ("ToonCrafter", "tooncrafter-512"),
        ("dynamicrafter_1024_v1_bf16.safetensors", "dynamicrafter-1024"),
        ("dynamicrafter_512_fp16_pruned.safetensors", "dynamicrafter-512"),
        ("DynamiCrafter-CIL-512-no-watermark", "dynamicrafter-512"),
        ("DynamiCrafter-CIL-1024", "dynamicrafter-1024"),
        ("my_dynamicrafter_loop.ckpt", "dynamicrafter-512-loop"),
        ("model.ckpt", None),
    ],
)
def test_published_names_tell_the_family(published: str, family: str | None) -> None:
    assert family_called(published) == family


def test_a_file_name_counts_more_than_its_folder_and_both_together_tell_it_too() -> None:
    assert family_called("dynamicrafter_1024.ckpt", "dynamicrafter_interp_and_others") == "dynamicrafter-1024"
    assert family_called("512_interp.ckpt", "DynamiCrafter") == "dynamicrafter-512-interp"


@pytest.mark.parametrize(
    ("hints", "possible"),
    [
        ({}, ["dynamicrafter-512", "dynamicrafter-1024", "dynamicrafter-512-interp", "dynamicrafter-512-loop",
              "tooncrafter-512"]),
        ({"scale_base": 0.3}, ["dynamicrafter-1024"]),
        ({"scale_base": 0.7, "dual_decoder": False},
         ["dynamicrafter-512", "dynamicrafter-512-interp", "dynamicrafter-512-loop"]),
        ({"scale_base": 0.7, "called": "dynamicrafter-512-interp"}, ["dynamicrafter-512-interp"]),
        ({"scale_base": 0.7, "called": "dynamicrafter-1024"},
         ["dynamicrafter-512", "dynamicrafter-512-interp", "dynamicrafter-512-loop", "tooncrafter-512"]),
        ({"dual_decoder": False, "called": "dynamicrafter-512"}, ["dynamicrafter-512"]),
        ({"family": "dynamicrafter-512-loop"}, ["dynamicrafter-512-loop"]),
    ],
)  # fmt: skip
def test_what_tensors_and_names_tell_narrows_the_families(hints: dict, possible: list[str]) -> None:
    assert names(possible_families(SHARED, hints)) == possible
    assert family_for(SHARED, hints).name == possible[0]


@pytest.mark.parametrize("preset", [name for name, config in PRESETS.items() if name != "dynamicrafter-1024"])
def test_only_the_networks_that_image_models_share_are_unclear(preset: str) -> None:
    others = [family for family in possible_families(PRESETS[preset])[1:] if family.image]
    assert bool(others) == (preset == "dynamicrafter-512")


def test_a_loader_says_which_family_it_takes_and_what_else_it_could_be(caplog: pytest.LogCaptureFixture) -> None:
    tensors = on_meta(manifests()["dynamicrafter-512"], prefix=UNET)
    checkpoint = open_checkpoint(tensors)
    assert checkpoint.info.other_families[0] == "dynamicrafter-1024"
    with caplog.at_level(logging.WARNING):
        checkpoint.warn_of_other_families()
    assert "is taken for dynamicrafter-512" in caplog.text
    assert "dynamicrafter-512-interp" in caplog.text
    assert "--family" in caplog.text


@pytest.mark.parametrize("family", ["dynamicrafter-1024", "dynamicrafter-512-interp", "dynamicrafter-512-loop"])
def test_a_family_that_is_named_is_taken_in_silence(family: str, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = open_checkpoint(on_meta(manifests()["dynamicrafter-512"], prefix=UNET), family=family)
    assert checkpoint.family.name == family
    assert checkpoint.config.default_fps == FAMILIES[family].fps_condition
    checkpoint.warn_of_other_families()
    assert not caplog.records


@pytest.mark.parametrize(
    ("network", "family"),
    [
        ("modelscope", "dynamicrafter-512"),
        ("dynamicrafter-512", "modelscope"),
        ("dynamicrafter-512", "videocrafter1-i2v"),
        ("modelscope", "i2vgen-xl"),
    ],
)
def test_a_family_of_another_network_is_refused(network: str, family: str) -> None:
    prefix = UNET if network == "dynamicrafter-512" else ""
    with pytest.raises(T2VError, match="its network is another one, so choose another family"):
        open_checkpoint(on_meta(manifests()[network], prefix=prefix), family=family).family  # noqa: B018


def test_text_models_never_warn(caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = open_checkpoint(on_meta(manifests()["modelscope"]))
    assert checkpoint.info.other_families == ()
    checkpoint.warn_of_other_families()
    assert not caplog.records


@pytest.fixture
def image_model(tmp_path: Path) -> Path:
    """A small image-to-video model in one file, with all parts."""
    tensors = all_in_one(dataclasses.replace(SMALL, in_channels=8, image_attention=True, fps_embedding=True))
    save_file(tensors | image_parts(), tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


def test_inspect_shows_every_part_of_an_image_model(image_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(image_model)]) == 0
    report = capsys.readouterr().out
    for kind in ("unet", "vae", "text_encoder", "image_encoder", "image_projector"):
        assert f"  {kind} " in report
    assert "image attention, image latents" in report


def test_a_network_of_another_size_takes_images_as_its_shape_says(image_model: Path) -> None:
    family = inspect(image_model).family
    assert (family.name, family.image, family.image_latents, family.image_tokens) == (
        "custom", True, "repeat", "resampler",
    )  # fmt: skip


def test_a_family_stays_chosen_in_a_converted_folder(image_model: Path, tmp_path: Path) -> None:
    command = ["convert", str(image_model), str(tmp_path / "folder"), "--layout", "diffusers", "--family"]
    assert main([*command, "dynamicrafter-512-interp"]) == 0
    checkpoint = open_checkpoint(tmp_path / "folder")
    assert checkpoint.family.name == "dynamicrafter-512-interp"
    assert checkpoint.family.image_latents == "ends"
    assert checkpoint.other_families == ()


def test_a_pruned_file_is_recognised_without_its_encoders(image_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    gone = ("cond_stage_model.", "embedder.")
    kept = {name: tensor.half() for name, tensor in load_file(image_model).items() if not name.startswith(gone)}
    save_file(kept, tmp_path / "pruned.safetensors")
    parts = inspect(tmp_path / "pruned.safetensors").parts
    assert set(parts) == {"unet", "vae", "image_projector"}
    assert all(part.dtype == "fp16" for part in parts.values())
    converted = convert(tmp_path / "pruned.safetensors", tmp_path / "folder", "diffusers")
    assert any(path.parent.name == "image_projector" for path in converted)
    assert set(inspect(tmp_path / "folder").parts) == {"unet", "vae", "image_projector", "scheduler"}


def test_a_pruned_file_and_the_whole_of_clip_in_one_folder_are_a_whole_model(image_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    tensors = load_file(image_model)
    folder = tmp_path / "folder"
    folder.mkdir()
    clip = {}
    for prefix in ("cond_stage_model.model.", "embedder.model."):
        clip |= {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    kept = ("model.diffusion_model.", "first_stage_model.", "image_proj_model.")
    pruned = {name: tensor for name, tensor in tensors.items() if name.startswith(kept)}
    save_file(pruned, folder / "dynamicrafter_512_interp_fp16_pruned.safetensors")
    torch.save(clip, folder / "open_clip_pytorch_model.bin")
    whole, parts = open_checkpoint(image_model).lazy_parts(), open_checkpoint(folder).lazy_parts()
    assert set(parts) == {"unet", "vae", "text_encoder", "image_encoder", "image_projector"}
    assert {kind: set(names) for kind, names in parts.items()} == {kind: set(names) for kind, names in whole.items()}


def test_the_noise_scale_in_a_file_overrules_its_name() -> None:
    tensors = on_meta(manifests()["dynamicrafter-512"], prefix=UNET)
    tensors["scale_arr"] = LazyTensor.of(torch.full((1400,), 0.3))
    assert open_checkpoint(tensors).family.name == "dynamicrafter-1024"


def test_the_published_resampler_has_its_tensors() -> None:
    published = manifests()["resampler"]
    assert len(published) == 51
    config = ResamplerConfig.of(on_meta(published))
    assert config == ResamplerConfig()
    renamed = resampler_state(on_meta(published))
    assert config.shapes() == {name: tensor.shape for name, tensor in renamed.items()}
