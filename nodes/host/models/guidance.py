"""Guidance functions of other nodes, made for images, on clips: they take each video's frames as a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.patcher_extension
import torch
from torch import Tensor

from ....t2v_models.errors import T2VError

KEY = "t2v_guidance"


def per_video(function: Callable[[dict[str, Any]], Tensor]) -> Callable[[dict[str, Any]], Tensor]:
    """Wrap a sampler_cfg_function (RescaleCFG, VideoLinearCFGGuidance …) so that it takes clips, too."""

    def folded(args: dict[str, Any]) -> Tensor:
        x = args["input"]
        if x.ndim != 5:
            return function(args)
        return torch.stack([function(_video(args, i)).transpose(0, 1) for i in range(x.shape[0])])

    return folded


def _video(args: dict[str, Any], i: int) -> dict[str, Any]:
    """The arguments of video i, its frames as the batch."""
    frames, videos = args["input"].shape[2], args["input"].shape[0]
    out = {}
    for name, value in args.items():
        if isinstance(value, Tensor) and value.ndim == 5:
            value = value[i].transpose(0, 1)
        elif isinstance(value, Tensor) and tuple(value.shape) == (videos,):
            value = value[i].expand(frames)
        out[name] = value
    return out


def predict_noise(executor: Any, x: Tensor, timestep: Tensor, model_options: dict[str, Any], *args: Any) -> Tensor:
    """Wrap one evaluation of the guided model: for clips, guidance functions are adapted.

    Raises:
        T2VError: for Self-Attention Guidance on clips, which needs pictures.
    """
    after = model_options.get("sampler_post_cfg_function", ())
    if x.ndim == 5 and any(getattr(function, "__module__", "").endswith("nodes_sag") for function in after):
        raise T2VError(
            "Self-Attention Guidance takes pictures and this latent is a clip: put T2VLatentLayout before the sampler, so "
            "that its frames are a batch."
        )
    if x.ndim == 5 and "sampler_cfg_function" in model_options:
        model_options = {**model_options, "sampler_cfg_function": per_video(model_options["sampler_cfg_function"])}
    return executor(x, timestep, model_options, *args)


def register_wrapper(patcher: Any) -> None:
    """Register `predict_noise` on a ModelPatcher; its clones have it, too."""
    patcher.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.PREDICT_NOISE, KEY, predict_noise)
