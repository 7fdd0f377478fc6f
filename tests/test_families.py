"""The table of families is consistent, and every checkpoint gets its family."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from t2v_models.checkpoints import inspect, open_checkpoint
from t2v_models.checkpoints.tensors import LazyTensor
from t2v_models.errors import T2VError
from t2v_models.families import FAMILIES
from t2v_models.family_matching import family_called, family_for
from t2v_models.unet import PRESETS, UNetConfig

from .support.checkpoints import SMALL, diffusers_folder, in_layout
from .support.manifests import manifests, on_meta

OF_512 = ("dynamicrafter-512", "dynamicrafter-512-interp", "dynamicrafter-512-loop", "tooncrafter-512")
"""The families of DynamiCrafter 512's network and noise schedule."""


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_every_family_is_complete(family) -> None:
    assert family.unet in PRESETS
    assert family.width % 8 == family.height % 8 == 0
    assert family.frames > 0
    assert family.licence
    assert (family.fps_condition is not None) == PRESETS[family.unet].fps_embedding
    assert family.image == (PRESETS[family.unet].image_attention or PRESETS[family.unet].image_branches)
    assert family.distilled or not PRESETS[family.unet].guidance_dim
    assert family.defaults.width == family.width
    assert family.betas == (0.00085, 0.012)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_diffusers_builds_the_noise_schedule_of_every_family(family) -> None:
    import diffusers

    config = family.scheduler_config()
    scheduler = getattr(diffusers, config["_class_name"]).from_config(config)
    assert scheduler.config.prediction_type == family.prediction_type
    last = scheduler.alphas_cumprod[-1]
    assert (last < 1e-6) == family.zero_terminal_snr
    if not family.zero_terminal_snr:
        assert abs(last - 0.0047) < 1e-4


@pytest.mark.parametrize("preset", PRESETS)
def test_every_network_has_a_family(preset: str) -> None:
    assert family_for(PRESETS[preset]).unet == preset or preset == "dynamicrafter-1024"


def test_noise_schedules_are_the_published_ones() -> None:
    velocity = {name for name, family in FAMILIES.items() if family.prediction_type == "v_prediction"}
    assert velocity == {"vgen", "tf-t2v", "videolcm", "dynamicrafter-1024", "i2vgen-xl", *OF_512}
    assert all(FAMILIES[name].zero_terminal_snr for name in velocity)
    scaled = {name: family.scale_base for name, family in FAMILIES.items() if family.scale_base}
    assert scaled == {"videocrafter2": 0.7, "videocrafter1-1024": 0.3, "videocrafter1-i2v": 0.7,
                      "dynamicrafter-1024": 0.3} | dict.fromkeys(OF_512, 0.7)  # fmt: skip


def test_stored_scale_distinguishes_the_dynamicrafters() -> None:
    for base, name, fps in ((0.7, "dynamicrafter-512", 24), (0.3, "dynamicrafter-1024", 10)):
        tensors = on_meta(manifests()["dynamicrafter-512"], prefix="model.diffusion_model.")
        tensors["scale_arr"] = LazyTensor.of(torch.cat([torch.linspace(1, base, 400), torch.full((1000,), base)]))
        checkpoint = open_checkpoint(tensors)
        assert checkpoint.family.name == name
        assert checkpoint.config.default_fps == fps


def test_wrapper_distinguishes_vgen_from_modelscope() -> None:
    shapes = manifests()["modelscope"]
    assert open_checkpoint(on_meta(shapes)).family.name == "modelscope"
    vgen = open_checkpoint(on_meta(shapes, prefix="state_dict."))
    assert vgen.family.name == "vgen"
    assert vgen.scheduler_config()["prediction_type"] == "v_prediction"
    assert vgen.scheduler_config()["beta_schedule"] == "squaredcos_cap_v2"


@pytest.mark.parametrize(("step", "name"), [(600_000, "modelscope"), (632_000, "modelscope"), (1, "vgen")])
def test_stored_step_distinguishes_modelscope_from_vgen(step: int, name: str) -> None:
    wrapped = on_meta(manifests()["modelscope"], prefix="state_dict.") | {"step": LazyTensor.of(torch.tensor(step))}
    assert open_checkpoint(wrapped).family.name == name


@pytest.mark.parametrize(("step", "name"), [(512_000, "tf-t2v"), (544_000, "videolcm"), (None, "tf-t2v")])
def test_input_channels_that_text_to_video_leaves_empty_are_removed(tmp_path: Path, step: int, name: str) -> None:
    tensors = in_layout("modelscope")
    latent = tensors["input_blocks.0.0.weight"]
    tensors["input_blocks.0.0.weight"] = torch.cat([latent, torch.randn(latent.shape[0], 8, 3, 3)], dim=1)
    torch.save({"state_dict": tensors, "step": step}, tmp_path / "model.pth")
    checkpoint = open_checkpoint(tmp_path / "model.pth")
    assert torch.equal(checkpoint.unet()["input_blocks.0.0.weight"], latent)
    assert checkpoint.family.name == name


def test_velocity_model_saved_by_the_host_stays_one() -> None:
    tensors = on_meta(manifests()["modelscope"], prefix="model.diffusion_model.")
    tensors["v_pred"] = LazyTensor.of(torch.tensor([]))
    assert open_checkpoint(tensors).family.prediction_type == "v_prediction"


def test_name_of_a_fine_tune_determines_only_its_sizes() -> None:
    assert family_called("cerspense/zeroscope_v2_576w") == "zeroscope-v2-576w"
    assert family_called("zeroscope_v2_XL.pth") == "zeroscope-v2-xl"
    assert family_called("text2video_pytorch_model.pth") is None
    assert family_for(UNetConfig(), {"called": "zeroscope-v2-576w"}).width == 576
    assert family_for(PRESETS["videocrafter2"], {"called": "zeroscope-v2-576w"}).name == "videocrafter2"
    velocity = {"called": "zeroscope-v2-576w", "prediction_type": "v_prediction", "zero_terminal_snr": True}
    assert family_for(UNetConfig(), velocity).prediction_type == "v_prediction"


def test_configurations_saved_under_older_names_of_fields_are_read() -> None:
    keys = {"prediction": "v_prediction", "schedule": "linear", "pace": ["slowly", "fast"], "frame_levels": True}
    old = family_for(SMALL, keys)
    new = {"prediction_type": "v_prediction", "beta_schedule": "linear", "speed_words": ["slowly", "fast"]}
    assert old == family_for(SMALL, {**new, "frame_timesteps": True})
    assert old.speed_words == ("slowly", "fast")
    assert old.frame_timesteps


def test_only_dynamicrafter_keeps_the_scale_of_its_last_step() -> None:
    keeping = {name for name, family in FAMILIES.items() if family.scheduler_config().get("keeps_last_scale")}
    assert keeping == {"dynamicrafter-1024", *OF_512}


def test_settings_of_a_diffusers_folder_replace_those_of_the_table(tmp_path: Path) -> None:
    folder = diffusers_folder(tmp_path)
    (folder / "scheduler").mkdir()
    scheduler = {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction", "rescale_betas_zero_snr": True,
                 "beta_start": 0.001, "beta_end": 0.02, "beta_schedule": "scaled_linear"}  # fmt: skip
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    config = json.loads((folder / "unet" / "config.json").read_text())
    config["t2v"] = {
        "title": "Ours",
        "licence": "CC0",
        "frames": 12,
        "speed_words": ["slowly", "fast"],
        "steps": "many",
    }
    (folder / "unet" / "config.json").write_text(json.dumps(config | {"sample_size": [9, 16]}))
    checkpoint = open_checkpoint(folder)
    family = checkpoint.family
    assert (family.prediction_type, family.zero_terminal_snr, family.betas) == ("v_prediction", True, (0.001, 0.02))
    assert (family.height, family.width, family.frames, family.title) == (72, 128, 12, "Ours")
    assert family.speed_words == ("slowly", "fast")
    assert family.steps == 50, "an entry of the wrong type is ignored"
    assert checkpoint.scheduler_config() == scheduler


def test_family_can_be_chosen_by_name(tmp_path: Path) -> None:
    save_file(in_layout("modelscope"), tmp_path / "model.safetensors")
    assert inspect(tmp_path / "model.safetensors").family.name == "custom"
    assert open_checkpoint(tmp_path / "model.safetensors", family="vgen").family.prediction_type == "v_prediction"
    with pytest.raises(T2VError, match="modelscope, zeroscope-v1"):
        open_checkpoint(tmp_path / "model.safetensors", family="vgn")


def test_unknown_network_gets_the_custom_family() -> None:
    assert replace(SMALL, default_fps=3) != SMALL
    assert family_for(SMALL).name == "custom"
    assert family_for(SMALL).unet == ""
