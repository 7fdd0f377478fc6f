"""The 3D UNet of ModelScope, ZeroScope, VideoCrafter, T2V-Turbo and kin."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import T2VError
from .attention import AttentionFunction, scaled_dot_product
from .config import UNetConfig
from .layers import (
    Downsample,
    Operations,
    ResBlock,
    Upsample,
    activate,
    channels_last,
    guidance_embedding,
    timestep_embedding,
)
from .patches import Options
from .transformer import SpatialTransformer, TemporalTransformer, TextContext


class UNet3D(nn.Module):
    """Predicts the noise (or velocity) in a latent video, given its noise level and a text.

    Spatial layers see ``(b t) c h w``, temporal ones ``(b h w) t c``; nothing is inferred from the batch size. Module
    names are those of latent diffusion (``input_blocks.1.0.in_layers.2``), where ComfyUI's LoRA loader expects them.

    Args:
        config: the shape of the network.
        operations: where the layer classes come from: ``torch.nn``, or a host's castable ones. Every weight lives in
            one of its layers.
        attention: see `t2v_models.unet.attention.AttentionFunction`; torch's own where None.
        dtype, device: of the new weights.

    Source: Wang et al. 2023, ModelScope Text-to-Video (arXiv:2308.06571); Chen et al. 2023, 2024, VideoCrafter1 and 2
    (arXiv:2310.19512, arXiv:2401.09047).
    """

    def __init__(
        self,
        config: UNetConfig,
        operations: Any = Operations,
        attention: AttentionFunction | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        factory = {"dtype": dtype, "device": device}
        layers = (operations, attention or scaled_dot_product)
        width, embed = config.channels[0], config.embed_dim

        # 1. embeddings
        self.time_embed = _mlp(width, embed, operations, factory)
        self.fps_embedding = _mlp(width, embed, operations, factory) if config.fps_embedding else None
        self.time_cond_proj = self.motion_cond_proj = self.combine_proj = None
        if config.guidance_dim:
            self.time_cond_proj = operations.Linear(config.guidance_dim, width, bias=False, **factory)
        if config.motion_dim:
            self.motion_cond_proj = operations.Linear(config.motion_dim, width, bias=False, **factory)
            self.combine_proj = operations.Linear(2 * width, width, bias=False, **factory)

        def res(in_channels: int, out_channels: int) -> ResBlock:
            norm = (config.norm_groups, config.norm_eps)
            return ResBlock(in_channels, out_channels, embed, *norm, config.temporal_convolution, operations, **factory)

        def transformers(channels: int) -> dict[str, nn.Module]:
            parts: dict[str, nn.Module] = {"1": SpatialTransformer(config, channels, *layers, **factory)}
            if config.temporal_attention:
                parts["temporal"] = TemporalTransformer(config, channels, *layers, **factory)
            return parts

        # 2. down
        first = operations.Conv2d(config.in_channels, width, 3, padding=1, **factory)
        self.input_blocks = nn.ModuleList([nn.ModuleDict({"0": first})])
        self.init_attn = None
        if config.init_attention:
            self.init_attn = TemporalTransformer(config, width, *layers, heads=config.init_heads, **factory)
        skips, channels = [width], width
        for level, out_channels in enumerate(config.channels):
            for _ in range(config.num_res_blocks):
                block = nn.ModuleDict({"0": res(channels, out_channels)})
                channels = out_channels
                if config.attention_levels[level]:
                    block.update(transformers(channels))
                self.input_blocks.append(block)
                skips.append(channels)
            if level < len(config.channels) - 1:
                self.input_blocks.append(nn.ModuleDict({"0": Downsample(channels, operations, **factory)}))
                skips.append(channels)

        # 3. middle
        self.middle_block = nn.ModuleDict({"0": res(channels, channels)})
        self.middle_block.update(transformers(channels))
        self.middle_block["2"] = res(channels, channels)

        # 4. up
        self.output_blocks = nn.ModuleList()
        for level in reversed(range(len(config.channels))):
            for i in range(config.num_res_blocks + 1):
                block = nn.ModuleDict({"0": res(channels + skips.pop(), config.channels[level])})
                channels = config.channels[level]
                if config.attention_levels[level]:
                    block.update(transformers(channels))
                if level and i == config.num_res_blocks:
                    block["2" if "1" in block else "1"] = Upsample(channels, operations, **factory)
                self.output_blocks.append(block)

        # 5. out
        self.out = nn.Sequential(
            operations.GroupNorm(config.norm_groups, width, eps=config.norm_eps, **factory),
            nn.SiLU(),
            operations.Conv2d(width, config.out_channels, 3, padding=1, **factory),
        )

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        *,
        fps: Tensor | float | None = None,
        guidance: Tensor | None = None,
        motion_guidance: Tensor | None = None,
        image_context: Tensor | None = None,
        control: dict[str, list[Tensor | None]] | None = None,
        options: dict[str, Any] | None = None,
    ) -> Tensor:
        """Predict from a noisy latent.

        Args:
            x: (b, c, t, h, w) noisy latent; any number of frames, any height and width.
            timesteps: (b,) noise levels 0..999, whole or fractional, or (b, t), one per frame.
            context: (b, n, d) text embedding, or (b, t, n, d), one text per frame; any n. With k*b texts the latents
                serve k times over (a prompt and its negative, say), in k parts of b, and so does the output.
            fps: frame rate (DynamiCrafter: frame stride), one number or (b,), for models with such an embedding;
                `config.default_fps` where None.
            guidance: (b,) guidance scales, or (b, guidance_dim) their embeddings, for distilled models.
            motion_guidance: the same for T2V-Turbo v2's motion guidance.
            image_context: (b, i, d) image tokens, or (b, t, i, d), one set per frame.
            control: residuals of a ControlNet for a batch of images: lists "input", "middle", "output" of
                ((b t), c, h, w), the last entry first.
            options: ComfyUI's transformer_options: see `t2v_models.unet.patches`; "temporal_windows" in it, a list of
                `t2v_models.unet.attention.Window`, keeps temporal attention within overlapping windows of frames.

        Returns:
            (b, out_channels, t, h, w), or (k*b, …).

        Raises:
            ValueError: where shapes do not fit the configuration or each other.
        """
        self._check(x, timesteps, context, guidance, motion_guidance)
        b, _, frames, height, width = x.shape
        options_ = Options(options, x)
        control = {place: list(residuals) for place, residuals in (control or {}).items()}
        text = TextContext(context.to(x.dtype), _cast(image_context, x.dtype), context.shape[0] // b)
        emb = self._embed(x, timesteps, fps, guidance, motion_guidance).repeat(text.copies, 1)
        if text.copies > 1 and (options_.patched or any(control.values())):
            x = x.repeat(text.copies, 1, 1, 1, 1)  # patches and ControlNets expect every row from the start
        options_.begin([x.shape[0] * frames, x.shape[1], height, width])
        emb = options_.apply("emb_patch", emb, self.config.channels[0])

        # 1. down
        h = channels_last(x.transpose(1, 2).flatten(0, 1))  # (b t) c h w
        skips: list[Tensor] = []
        for i, block in enumerate(self.input_blocks):
            options_.at("input", i)
            h = self._block(block, h, emb, text, frames, options_)
            if i == 0 and self.init_attn is not None:
                h = self.init_attn(h, frames, options_)
            h = _add(h, control.get("input"))
            h = options_.apply("input_block_patch", h)
            skips.append(h)
            h = options_.apply("input_block_patch_after_skip", h)

        # 2. middle
        options_.at("middle", 0)
        h = _add(self._block(self.middle_block, h, emb, text, frames, options_), control.get("middle"))
        h = options_.after_middle(h, x, emb, context, timesteps)

        # 3. up
        for i, block in enumerate(self.output_blocks):
            options_.at("output", i)
            skip = _add(text.spread(skips.pop(), frames), control.get("output"))
            h, skip = options_.output_block(h, skip)
            h = torch.cat([h, skip], dim=1)
            size = skips[-1].shape[-2:] if skips else h.shape[-2:]
            h = self._block(block, h, emb, text, frames, options_, size)

        # 4. out
        h = self.out[2](activate(self.out[0](h)))
        return h.unflatten(0, (-1, frames)).transpose(1, 2)

    def _block(
        self,
        block: nn.ModuleDict,
        h: Tensor,
        emb: Tensor,
        text: TextContext,
        frames: int,
        options: Options,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        """One block of the UNet. h: (b t) c h w -> (b t) c' h' w'."""
        for layer in block.values():
            if isinstance(layer, ResBlock):
                done = h.shape[0] / (text.text.shape[0] * frames)  # less than 1 until the first text attention
                h = layer(h, emb[: int(emb.shape[0] * done)], frames)
            elif isinstance(layer, SpatialTransformer):
                h = layer(h, text, frames, options)
            elif isinstance(layer, TemporalTransformer):
                h = layer(h, frames, options)
            elif isinstance(layer, Upsample):
                h = layer(h, size)
            else:
                h = layer(h)
        return h

    def _embed(
        self,
        x: Tensor,
        timesteps: Tensor,
        fps: Tensor | float | None,
        guidance: Tensor | None,
        motion_guidance: Tensor | None,
    ) -> Tensor:
        """The embedding that every residual block adds: (b, e), or ((b t), e) where frames differ in noise level."""
        dim, per_video = self.config.channels[0], timesteps.numel() // x.shape[0]
        sinusoid = timestep_embedding(timesteps.flatten(), dim).to(x.dtype)
        if self.time_cond_proj is not None and guidance is not None:
            condition = self.time_cond_proj(_embedded(guidance, self.config.guidance_dim, x.dtype))
            if self.motion_cond_proj is not None and motion_guidance is not None:
                motion = self.motion_cond_proj(_embedded(motion_guidance, self.config.motion_dim, x.dtype))
                condition = self.combine_proj(torch.cat([condition, motion], dim=1))
            sinusoid = sinusoid + condition.repeat_interleave(per_video, dim=0)
        emb = self.time_embed(sinusoid)
        if self.fps_embedding is not None:
            fps = self.config.default_fps if fps is None else fps
            fps = torch.as_tensor(fps, device=x.device).flatten().expand(x.shape[0])
            rate = self.fps_embedding(timestep_embedding(fps, dim).to(x.dtype))
            emb = emb + rate.repeat_interleave(per_video, dim=0)
        return emb

    def _check(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        guidance: Tensor | None,
        motion_guidance: Tensor | None,
    ) -> None:
        config = self.config
        if x.ndim != 5 or x.shape[1] != config.in_channels or 0 in x.shape:
            raise T2VError(
                f"The latent has shape {tuple(x.shape)}: (batch, {config.in_channels}, frames, height, width) is "
                "wanted."
            )
        b, _, t = x.shape[:3]
        if tuple(timesteps.shape) not in ((b,), (b, t)):
            raise T2VError(f"timesteps has shape {tuple(timesteps.shape)}: ({b},) or ({b}, {t}) is wanted.")
        per_frame = context.ndim == 4 and context.shape[1] != t
        if context.ndim not in (3, 4) or context.shape[0] % b or context.shape[-1] != config.context_dim or per_frame:
            raise T2VError(
                f"The text embedding has shape {tuple(context.shape)}: ({b}, tokens, {config.context_dim}), or with "
                f"one text per frame ({b}, {t}, tokens, {config.context_dim}), is wanted. Was it made by this "
                "model's own text encoder?"
            )
        if guidance is not None and not config.guidance_dim:
            raise T2VError("guidance is given, but this model has no guidance embedding: leave it out.")
        if motion_guidance is not None and (guidance is None or not config.motion_dim):
            raise T2VError("motion_guidance is given: it needs guidance too, and a model with a motion embedding.")

    @property
    def dtype(self) -> torch.dtype:
        """The weights' dtype."""
        return self.out[2].weight.dtype


def _mlp(dim: int, embed_dim: int, operations: Any, factory: dict[str, Any]) -> nn.Sequential:
    first = operations.Linear(dim, embed_dim, **factory)
    return nn.Sequential(first, nn.SiLU(), operations.Linear(embed_dim, embed_dim, **factory))


def _embedded(scale: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    return (guidance_embedding(scale, dim) if scale.ndim == 1 else scale).to(dtype)


def _cast(x: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if x is None else x.to(dtype)


def _add(h: Tensor, residuals: list[Tensor | None] | None) -> Tensor:
    """h plus the last of the residuals, which is taken off the list; in h's type, as ControlNets compute in their own."""
    residual = residuals.pop() if residuals else None
    return h if residual is None else h + residual.to(h.dtype)
