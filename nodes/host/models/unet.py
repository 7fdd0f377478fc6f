"""UNet3D with the host's call: clips or a batch of frames, wrappers, patches, ControlNet residuals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import comfy.patcher_extension
import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor

from ....t2v_models.conditions import Conditions
from ....t2v_models.errors import T2VError
from ....t2v_models.unet import UNet3D, UNetConfig
from ....t2v_models.unet.attention import MAX_BATCH
from .. import compat, stories
from . import pictures

FREE_NOISE = "t2v_free_noise"
"""Key of FreeNoise's `Windows` in the transformer options."""


def host_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, options: dict[str, Any] | None = None) -> Tensor:
    """Call the attention that the host has chosen. q: (b, n, h*d), k and v: (b, m, h*d) -> (b, n, h*d)."""
    if q.shape[0] > MAX_BATCH and q.device.type != "cpu":
        parts = zip(q.split(MAX_BATCH), k.split(MAX_BATCH), v.split(MAX_BATCH), strict=True)
        return torch.cat([host_attention(*part, heads, options) for part in parts])
    return optimized_attention(q, k, v, heads, transformer_options=options or {})


class HostUNet3D(UNet3D):
    """The `diffusion_model` of the host's BaseModel."""

    def __init__(
        self, *, unet3d_config: UNetConfig, dtype: Any = None, device: Any = None, operations: Any = None, **_: Any
    ) -> None:
        super().__init__(unet3d_config, compat.with_fast_norms(operations), host_attention, dtype=dtype, device=device)
        self.defaults: dict[str, float | None] = {}
        self._dtype = dtype

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the host chose for the weights; they may be stored in another, and cast on their way to the device."""
        return super().dtype if self._dtype is None else self._dtype

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        y: Tensor | None = None,
        control: dict[str, list] | None = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Predict from x, (b, c, t, h, w), or ((b t), c, h, w) with num_video_frames; the result has the shape of x."""
        options = {} if transformer_options is None else transformer_options
        stage = comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL
        wrappers = comfy.patcher_extension.get_all_wrappers(stage, options)
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self._forward, self, wrappers)
        return executor.execute(x, timesteps, context, y, control, options, **kwargs)

    def _forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None,
        y: Tensor | None,
        control: dict[str, list] | None,
        options: dict[str, Any],
        num_video_frames: int | None = None,
        **conds: Any,
    ) -> Tensor:
        self._check_host_inputs(x, context, conds.get(pictures.BESIDE))
        frames_as_batch = x.ndim == 4
        if frames_as_batch:
            frames = num_video_frames or x.shape[0]
            if x.shape[0] % frames:
                raise T2VError(f"A batch of {x.shape[0]} frames does not divide into clips of {frames} frames.")
            x = x.unflatten(0, (-1, frames)).transpose(1, 2)
            timesteps = _one_per_clip(timesteps, frames)
            context = _one_per_clip(context, frames)
            conds = {name: value[::frames] if isinstance(value, Tensor) else value for name, value in conds.items()}
        options["original_shape"] = [context.shape[0] * x.shape[2], x.shape[1], *x.shape[3:]]
        window = options.get("context_window")
        if getattr(window, "dim", None) != (0 if frames_as_batch else 2):  # a part of the clips, not of the frames
            window = None
        if "t2v_texts" in conds:
            story = (conds["t2v_texts"].to(x), conds["t2v_blend"].to(x), conds["t2v_story_shape"])
            context = stories.context(*story, x.shape[2], window)
        image = pictures.tokens(self, conds, x.shape[2])
        if image is not None:
            options = {**options, "image_strength": conds[pictures.STRENGTH]}
        x = pictures.with_latents(x, conds, window)
        if FREE_NOISE in options:
            options = {**options, "temporal_windows": options[FREE_NOISE].over(x.shape[2]).temporal()}
        x, timesteps = _shared(x, timesteps, context, len(options.get("cond_or_uncond", ())))
        out = super().forward(
            x, timesteps, context, control=control, options=options, **self._conditions(options, image, timesteps)
        )
        return out.transpose(1, 2).flatten(0, 1) if frames_as_batch else out

    def _conditions(self, options: dict[str, Any], image: Tensor | None, timesteps: Tensor) -> dict[str, Any]:
        """The arguments of `UNet3D.forward` beside the text: the model's own values, or those in the options."""
        values = {**self.defaults, **options.get("t2v_values", {})}
        numbers = (values.get(name) for name in ("fps", "guidance", "motion_guidance"))
        return replace(Conditions.of(self.config, *numbers), image=image).arguments(timesteps)

    def _check_host_inputs(self, x: Tensor, context: Tensor | None, beside: Tensor | None) -> None:
        """Raise T2VError for a latent or a text of another kind of model."""
        config = self.config
        channels = config.in_channels - (0 if beside is None else beside.shape[1])
        if x.ndim not in (4, 5) or x.shape[1] != channels:
            raise T2VError(
                f"The latent that reached this model has shape {tuple(x.shape)} and {channels} channels are "
                "wanted: use T2VEmptyLatent, or encode with the VAE of T2VModelLoader."
            )
        if context is None:
            raise T2VError("The conditioning holds no text: wire T2VTextEncode or CLIPTextEncode.")
        if context.shape[-1] != config.context_dim:
            raise T2VError(
                f"The text conditioning is {context.shape[-1]} wide and this model takes {config.context_dim}: encode "
                "the text with the CLIP of T2VModelLoader."
            )


def _one_per_clip(rows: Tensor, frames: int) -> Tensor:
    """((b t), …) -> (b, …) where the frames of every clip agree, else (b, t, …)."""
    clips = rows.unflatten(0, (-1, frames))
    first = clips[:, :1]
    return first[:, 0] if bool((clips == first).all()) else clips


def _shared(x: Tensor, timesteps: Tensor, context: Tensor, parts: int) -> tuple[Tensor, Tensor]:
    """The first copy of latents that the host repeats for prompt and negative prompt: the first layers then run once."""
    if parts > 1 and x.shape[0] % parts == 0 and context.shape[0] == x.shape[0]:
        b = x.shape[0] // parts
        same = (torch.equal(x[:b], part) for part in x.split(b)[1:])
        if all(same) and torch.equal(timesteps, timesteps[:b].repeat(parts, *[1] * (timesteps.ndim - 1))):
            return x[:b], timesteps[:b]
    return x, timesteps
