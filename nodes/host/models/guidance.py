"""Guidance functions of other nodes, made for images, on clips: they take each video's frames as a batch. And guidance by a
picture with a scale of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.patcher_extension
import comfy.samplers
import torch
from torch import Tensor

from ....t2v_models.errors import T2VError
from . import pictures

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


def with_image_guidance(model: Any, scale: float) -> Any:
    """Return a clone that follows the picture in its conditionings by a scale of its own, in one evaluation more a step.

    The guided prediction is u + scale (i - u) + cfg (c - i), where i has the negative text and the picture, u the negative
    text and the grey picture: core's result plus (scale - cfg) (i - u). Where the scales are equal, nothing more is evaluated.

    Source: Brooks et al. 2023, InstructPix2Pix, section 3.2.1 (arXiv:2211.09800), as DynamiCrafter uses it.
    """

    def post_cfg(args: dict[str, Any]) -> Tensor:
        more = scale - args["cond_scale"]
        if not more or not args["uncond"]:
            return args["denoised"]
        shown = [_with_picture_of(entry, args["cond"]) for entry in args["uncond"]]
        call = (args["model"], [None, shown], args["input"], args["sigma"], args["model_options"])
        image_only = comfy.samplers.calc_cond_batch(*call)[1]
        return args["denoised"] + more * (image_only - args["uncond_denoised"])

    model = model.clone()
    model.set_model_sampler_post_cfg_function(post_cfg, disable_cfg1_optimization=True)
    return model


def _with_picture_of(entry: dict[str, Any], others: list[dict[str, Any]]) -> dict[str, Any]:
    """An entry of the host's conditionings with the picture of others."""
    picture = next((each["model_conds"] for each in others if pictures.TOKENS in each["model_conds"]), {})
    own = {name: value for name, value in entry["model_conds"].items() if name not in pictures.CONDS}
    return {**entry, "model_conds": {**own, **{name: picture[name] for name in pictures.CONDS if name in picture}}}
