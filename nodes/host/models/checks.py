"""Checks around every sampler of the host: whether the device has room for a clip, and whether the result is finite."""

from __future__ import annotations

from typing import Any

import comfy.model_base
import comfy.model_management
import comfy.patcher_extension
import torch
from torch import Tensor

from ....t2v_models.errors import T2VError
from .unet import FREE_NOISE

KEY = "t2v_checks"

LONGEST = 64
"""How many times a model's own length may go through it at once: attention over frames takes quadratic time."""


def register_wrapper(patcher: Any) -> None:
    """Register `outer_sample` on a ModelPatcher; its clones have it, too."""
    patcher.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, KEY, outer_sample)


def outer_sample(executor: Any, noise: Tensor, latent: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Wrap a whole sampling run of the host: check the latent before it, and its result after it."""
    model = executor.class_obj.model_patcher
    check_memory(model.model, model, latent)
    result = executor(noise, latent, *args, **kwargs)
    check_finite(model.model, result)
    return result


def check_memory(inner: comfy.model_base.BaseModel, model: Any, samples: Tensor) -> None:
    """Raise T2VError for latents, (b, 4, t, h, w) or (t, 4, h, w), that no offloading can make fit, before sampling starts.

    With context windows, only a window has to fit.
    """
    shape = list(samples.shape)
    handler = model.model_options.get("context_handler")
    frames = shape[0] if samples.ndim == 4 else shape[2]
    most = LONGEST * inner.defaults.frames
    free_noise = FREE_NOISE in model.model_options.get("transformer_options", {})
    if frames > most and handler is None and not free_noise:
        raise T2VError(
            f"{frames} frames at once are too many: this model was made for {inner.defaults.frames}, and takes {most} at most: "
            "use fewer frames, or T2VWindows, T2VFreeNoise or T2VFilm for long videos."
        )
    if handler is not None:
        shape[handler.dim] = min(shape[handler.dim], handler.context_length)
    check_room(inner, model, [1 if samples.ndim == 5 else shape[0], *shape[1:]])


def check_room(inner: comfy.model_base.BaseModel, model: Any, shape: list[int]) -> None:
    """Raise T2VError where latents of this shape need more than twice the memory that the device has in all."""
    needed = inner.memory_required(shape)
    there = comfy.model_management.get_total_memory(model.load_device)
    if needed > 2 * there:
        frames = shape[2] if len(shape) == 5 else shape[0]
        raise T2VError(
            f"{frames} frames of {8 * shape[-1]}x{8 * shape[-2]} at once need about {needed / 2**30:.0f} GB and this "
            f"device has {there / 2**30:.0f} GB: use fewer or smaller frames, or context windows."
        )


def check_finite(inner: comfy.model_base.BaseModel, samples: Tensor) -> None:
    """Raise T2VError where samples hold NaN or infinity, which would become a black video; names shape and dtype."""
    broken = int((~samples.isfinite()).sum())
    if broken:
        end = computed_in(inner, *(f"set weight_dtype to {to} in T2VModelLoader" for to in ("fp32", "bf16 or fp32")))
        raise T2VError(
            f"{100 * broken / samples.numel():.0f} % of the sampled latent {tuple(samples.shape)} is not a number, {end}"
        )


def computed_in(inner: comfy.model_base.BaseModel, to_fp32: str, to_either: str) -> str:
    """The end of a message about results that are not finite: the type in which a model computes, and what to do.

    Args:
        inner: the model.
        to_fp32: how fp32 is chosen.
        to_either: how bf16 or fp32 is chosen.
    """
    dtype = inner.manual_cast_dtype or inner.get_dtype()
    remedy = {
        torch.float32: "take LoRAs and other patches away one by one, try another model file",
        torch.bfloat16: f"{to_fp32}, take LoRAs away",
    }.get(dtype, to_either)
    return f"computed in {str(dtype).removeprefix('torch.')}: {remedy}, or lower cfg."
