"""Hints of a checkpoint's family that the UNet's shape does not give: configurations, buffers, wrappers, names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import AGAIN, T2VError
from ..family_matching import family_called
from . import dual_decoder
from .configs import is_plain
from .detect import Part
from .layouts import Layout, any_with
from .locate import Found
from .tensors import LazyDict, LazyTensor

_VIDEOLCM_STEPS = (435_000, 544_000)
"""Training steps at which VideoLCM was published; its shapes are TF-T2V's."""

_MODELSCOPE_STEPS = (600_000, 632_000)
"""Training steps of ModelScope's networks for InstructVideo and DreamVideo, whose shapes and wrapper are VGen's."""

_SCALES = (0.3, 0.7)
"""scale_base of all published models; a buffer in half precision only comes close to it."""


def family_hints(found: Found, part: Part, layout: Layout, path: str) -> dict[str, Any]:
    """Collect the hints for `family_for`; a later source overrides an earlier one.

    Args:
        found: the checkpoint's parts, configurations and buffers.
        part: its UNet.
        layout: the UNet's layout.
        path: where the checkpoint is, whose last names may be a fine-tune's.
    """
    hints = _from_tensors(found.extra, part, layout, path)
    if "vae" in found.parts:
        hints["dual_decoder"] = dual_decoder.is_dual(found.parts["vae"].tensors)
        if hints["dual_decoder"]:
            hints["family"] = "tooncrafter-512"  # whose UNet is DynamiCrafter's
    hints |= _from_scheduler(found.configs.get("scheduler", {}))
    config = found.configs.get("unet", {})
    hints |= _from_names(config, path)
    if isinstance(config.get("t2v"), dict):
        hints |= {name: value for name, value in config["t2v"].items() if is_plain(value)}
    return hints


def _is_one_number(tensor: LazyTensor) -> bool:
    return tensor.numel == 1 and not tensor.dtype.is_floating_point


def _from_tensors(extra: LazyDict, part: Part, layout: Layout, path: str) -> dict[str, Any]:
    """Read the training step, the wrapper of ModelScope's layout, and VideoCrafter's buffers."""
    hints: dict[str, Any] = {}
    step = int(extra["step"].load()) if "step" in extra and _is_one_number(extra["step"]) else 0
    if part.blank_channels:
        hints["family"] = "videolcm" if step in _VIDEOLCM_STEPS else "tf-t2v"
    elif any_with(part.tensors, "local_image_concat."):
        pass  # I2VGen-XL, which its shapes tell
    elif layout.name == "modelscope" and part.prefix.startswith("state_dict."):
        hints["family"] = "modelscope" if step in _MODELSCOPE_STEPS else "vgen"  # ModelScope's own has no wrapper
    if "scale_arr" in extra and extra["scale_arr"].numel:
        base = float(extra["scale_arr"].load().flatten()[-1])
        if not 0 < base <= 1:
            raise T2VError(f"{path} scales its latents by {base}, and a number from 0 to 1 is wanted. {AGAIN}")
        hints["scale_base"] = next((known for known in _SCALES if abs(base - known) < 0.002), round(base, 4))
    if "v_pred" in extra:
        hints["prediction_type"] = "v_prediction"
    return hints


def _from_scheduler(scheduler: Mapping[str, Any]) -> dict[str, Any]:
    """Read the configuration of a diffusers scheduler."""
    hints: dict[str, Any] = {}
    for ours, theirs in (("prediction_type", "prediction_type"), ("zero_terminal_snr", "rescale_betas_zero_snr")):
        if theirs in scheduler:
            hints[ours] = scheduler[theirs]
    if isinstance(scheduler.get("beta_schedule"), str):
        hints["beta_schedule"] = scheduler["beta_schedule"]
    if isinstance(scheduler.get("beta_start"), float) and isinstance(scheduler.get("beta_end"), float):
        hints["betas"] = (scheduler["beta_start"], scheduler["beta_end"])
    if isinstance(scheduler.get("scale_base"), float):
        hints["scale_base"] = scheduler["scale_base"]
    return hints


def _from_names(config: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Read a model's name from the configuration and the path; where there is none, the configuration's size."""
    called = family_called(str(config.get("_name_or_path", ""))[:1000], *reversed(Path(path).parts[-2:]))
    if called:
        return {"called": called}
    size = config.get("sample_size")  # which fine-tunes leave at ModelScope's
    if isinstance(size, int) and size > 0:
        size = [size, size]
    if isinstance(size, (list, tuple)) and len(size) == 2 and all(type(n) is int and 0 < n <= 1 << 16 for n in size):
        return {"height": 8 * size[0], "width": 8 * size[1]}
    return {}
