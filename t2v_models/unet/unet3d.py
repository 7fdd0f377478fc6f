"""The 3D UNet of ModelScope, ZeroScope, VideoCrafter, T2V-Turbo and kin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from einops import rearrange
from torch import Tensor, nn

from ..errors import T2VError
from .attention import scaled_dot_product
from .config import UNetConfig
from .factory import AttentionFunction, Factory, Operations
from .image_branches import ImageBranches, with_tokens
from .layers import (
    Downsample,
    ResBlock,
    Upsample,
    activate,
    channels_last,
    guidance_embedding,
    timestep_embedding,
)
from .patches import Patches
from .transformer import SpatialTransformer, TemporalTransformer, TextContext

Control = dict[str, list[Tensor | None]]
"""Residuals of a ControlNet by "input", "middle" and "output": the last of a list is added first."""


@dataclass
class _Pass:
    """What all blocks of one forward pass take."""

    emb: Tensor
    text: TextContext
    frames: int
    patches: Patches
    control: Control

    def add_control(self, place: str, h: Tensor) -> Tensor:
        """h plus the next residual of this place, in h's dtype, as ControlNets may compute in another."""
        residuals = self.control.get(place)
        residual = residuals.pop() if residuals else None
        return h if residual is None else h + residual.to(h.dtype)


class UNet3D(nn.Module):
    """Predicts the noise (or velocity) in a latent video, given its timesteps and a text.

    Spatial layers take ``(b t) c h w``, temporal ones ``(b h w) t c``; nothing is inferred from the batch size. Module
    names are those of latent diffusion (``input_blocks.1.0.in_layers.2``), where ComfyUI's LoRA loader expects them.

    Args:
        config: the shape of the network.
        operations: has the layer classes, `t2v_models.unet.factory.Operations` or a host's. Every weight is in one of
            these layers.
        attention: see `t2v_models.unet.factory.AttentionFunction`; torch's own where None.
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
        make = Factory(operations, attention or scaled_dot_product, dtype, device)
        width, embed = config.channels[0], config.embed_dim

        # 1. embeddings
        self.time_embed = make.mlp(width, embed)
        self.fps_embedding = make.mlp(width, embed) if config.fps_embedding else None
        self.time_cond_proj = make.linear(config.guidance_dim, width, bias=False) if config.guidance_dim else None
        self.motion_cond_proj = make.linear(config.motion_dim, width, bias=False) if config.motion_dim else None
        self.combine_proj = make.linear(2 * width, width, bias=False) if config.motion_dim else None
        self.image_branches = ImageBranches(config, make) if config.image_branches else None

        # 2. down
        first = make.convolution(config.in_channels, width, 3, padding=1)
        self.input_blocks = nn.ModuleList([nn.ModuleDict({"0": first})])
        self.init_attn = TemporalTransformer(config, width, make, config.init_heads) if config.init_attention else None
        skips = [width, *self._add_input_blocks(make)]

        # 3. middle
        channels = config.channels[-1]
        self.middle_block = nn.ModuleDict({"0": self._res(channels, channels, make)})
        self.middle_block.update(self._transformers(channels, make))
        self.middle_block["2"] = self._res(channels, channels, make)

        # 4. up
        self.output_blocks = nn.ModuleList()
        self._add_output_blocks(skips, make)

        # 5. out
        self.out = nn.Sequential(
            make.group_norm(config.norm_groups, width, config.norm_eps),
            nn.SiLU(),
            make.convolution(width, config.out_channels, 3, padding=1),
        )

    def _res(self, in_channels: int, out_channels: int, make: Factory) -> ResBlock:
        config = self.config
        norm = (config.norm_groups, config.norm_eps)
        return ResBlock(in_channels, out_channels, config.embed_dim, *norm, config.temporal_convolution, make)

    def _transformers(self, channels: int, make: Factory) -> dict[str, nn.Module]:
        parts: dict[str, nn.Module] = {"1": SpatialTransformer(self.config, channels, make)}
        if self.config.temporal_attention:
            parts["temporal"] = TemporalTransformer(self.config, channels, make)
        return parts

    def _add_input_blocks(self, make: Factory) -> list[int]:
        """The blocks from full size to the smallest; returns the channels that each leaves for its skip."""
        skips, channels = [], self.config.channels[0]
        for level, out_channels in enumerate(self.config.channels):
            for _ in range(self.config.num_res_blocks):
                block = nn.ModuleDict({"0": self._res(channels, out_channels, make)})
                channels = out_channels
                if self.config.attention_levels[level]:
                    block.update(self._transformers(channels, make))
                self.input_blocks.append(block)
                skips.append(channels)
            if level < len(self.config.channels) - 1:
                self.input_blocks.append(nn.ModuleDict({"0": Downsample(channels, make)}))
                skips.append(channels)
        return skips

    def _add_output_blocks(self, skips: list[int], make: Factory) -> None:
        """The blocks from the smallest size to full size. skips: channels that join each, the last one first."""
        channels = self.config.channels[-1]
        for level in reversed(range(len(self.config.channels))):
            for i in range(self.config.num_res_blocks + 1):
                block = nn.ModuleDict({"0": self._res(channels + skips.pop(), self.config.channels[level], make)})
                channels = self.config.channels[level]
                if self.config.attention_levels[level]:
                    block.update(self._transformers(channels, make))
                if level and i == self.config.num_res_blocks:
                    block["2" if "1" in block else "1"] = Upsample(channels, make)
                self.output_blocks.append(block)

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
        control: Control | None = None,
        options: dict[str, Any] | None = None,
    ) -> Tensor:
        """Predict from a noisy latent.

        Args:
            x: (b, c, t, h, w) noisy latent; any number of frames, any height and width.
            timesteps: (b,) numbers from 0 to 999, whole or fractional, or (b, t), one per frame.
            context: (b, n, d) text embedding, or (b, t, n, d), one text per frame; any n. With k*b texts (a prompt and
                its negative, say) every latent is used k times, and the output has k parts of b.
            fps: frame rate (DynamiCrafter: frame stride), one number or (b,), for models with such an embedding;
                `config.default_fps` where None.
            guidance: (b,) guidance scales, or (b, guidance_dim) their embeddings, for distilled models.
            motion_guidance: motion guidance scales or their embeddings, likewise, for T2V-Turbo v2.
            image_context: (b, i, d) image tokens, or (b, t, i, d), one set per frame; of I2VGen-XL those that its
                `image_branches.tokens` makes.
            control: residuals of a ControlNet for a batch of images: lists "input", "middle", "output" of
                ((b t), c, h, w), the last entry first.
            options: ComfyUI's transformer_options: see `t2v_models.unet.patches`. Its entry "temporal_windows", a list
                of `t2v_models.unet.attention.Window`, keeps temporal attention within overlapping windows of frames; its
                entry "image_strength", a number, is a factor on the attention to image tokens, 1 if left out.

        Returns:
            (b, out_channels, t, h, w), or (k*b, …).

        Raises:
            T2VError: where shapes do not fit the configuration or each other.
        """
        self._check(x, timesteps, context, guidance, motion_guidance)
        b, _, frames, height, width = x.shape
        if self.image_branches is not None:
            strength = (options or {}).get("image_strength", 1)
            x, context = self.image_branches.with_channels(x), with_tokens(context, image_context, strength)
            image_context = None
        patches = Patches(options, x)
        text = TextContext(context.to(x.dtype), _cast(image_context, x.dtype), context.shape[0] // b)
        emb = self._embed(x, timesteps, fps, guidance, motion_guidance).repeat(text.copies, 1)
        control = {place: list(residuals) for place, residuals in (control or {}).items()}
        if text.copies > 1 and (patches or any(control.values())):
            x = x.repeat(text.copies, 1, 1, 1, 1)  # patches and ControlNets expect every row from the start
        patches.begin([x.shape[0] * frames, x.shape[1], height, width])
        emb = patches.apply("emb_patch", emb, self.config.channels[0])
        run = _Pass(emb, text, frames, patches, control)

        # 1. down
        h = channels_last(x.transpose(1, 2).flatten(0, 1))  # (b t) c h w
        skips: list[Tensor] = []
        for i in range(len(self.input_blocks)):
            h = self._block("input", i, h, run)
            skips.append(h)
            h = patches.apply("input_block_patch_after_skip", h)

        # 2. middle
        h = self._block("middle", 0, h, run)
        h = patches.after_middle(h, x, emb, context, timesteps)

        # 3. up
        for i in range(len(self.output_blocks)):
            skip = run.add_control("output", text.spread(skips.pop(), frames))
            h, skip = patches.before_output(i, h, skip)
            size = skips[-1].shape[-2:] if skips else h.shape[-2:]
            h = self._block("output", i, torch.cat([h, skip], dim=1), run, size)

        # 4. out
        h = self.out[2](activate(self.out[0](h)))
        out: Tensor = rearrange(h, "(b t) c h w -> b c t h w", t=frames)
        return out

    def _block(self, place: str, index: int, h: Tensor, run: _Pass, size: Sequence[int] = ()) -> Tensor:
        """One block of the UNet with its ControlNet residual and patches. h: (b t) c h w -> (b t) c' h' w'."""
        run.patches.at(place, index)
        for layer in self._layers(place, index):
            h = _apply(layer, h, run, size)
        if place != "output":  # where the residual has been added to the skip
            h = run.add_control(place, h)
        return run.patches.apply("input_block_patch", h) if place == "input" else h

    def _layers(self, place: str, index: int) -> list[nn.Module]:
        """The layers of a block, in order."""
        if place == "middle":
            return list(self.middle_block.values())
        blocks = self.input_blocks if place == "input" else self.output_blocks
        layers = list(cast(nn.ModuleDict, blocks[index]).values())
        if place == "input" and index == 0 and self.init_attn is not None:
            layers.append(self.init_attn)
        return layers

    def _embed(
        self,
        x: Tensor,
        timesteps: Tensor,
        fps: Tensor | float | None,
        guidance: Tensor | None,
        motion_guidance: Tensor | None,
    ) -> Tensor:
        """The embedding that every residual block adds: (b, e), or ((b t), e) where frames have their own timesteps."""
        dim, per_video = self.config.channels[0], timesteps.numel() // x.shape[0]
        sinusoid = timestep_embedding(timesteps.flatten(), dim).to(x.dtype)
        if self.time_cond_proj is not None and guidance is not None:
            condition = self.time_cond_proj(_embedded(guidance, self.config.guidance_dim, x.dtype))
            if self.motion_cond_proj is not None and self.combine_proj is not None and motion_guidance is not None:
                motion = self.motion_cond_proj(_embedded(motion_guidance, self.config.motion_dim, x.dtype))
                condition = self.combine_proj(torch.cat([condition, motion], dim=1))
            sinusoid = sinusoid + condition.repeat_interleave(per_video, dim=0)
        emb: Tensor = self.time_embed(sinusoid)
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
        return cast(nn.Conv2d, self.out[2]).weight.dtype


def _apply(layer: nn.Module, h: Tensor, run: _Pass, size: Sequence[int]) -> Tensor:
    """h after one layer of a block, called with the inputs that its class takes."""
    if isinstance(layer, ResBlock):
        done = h.shape[0] / (run.text.text.shape[0] * run.frames)  # less than 1 until the first text attention
        h = layer(h, run.emb[: int(run.emb.shape[0] * done)], run.frames)
    elif isinstance(layer, SpatialTransformer):
        h = layer(h, run.text, run.frames, run.patches)
    elif isinstance(layer, TemporalTransformer):
        h = layer(h, run.frames, run.patches)
    elif isinstance(layer, Upsample):
        h = layer(h, size)
    else:
        h = layer(h)
    return h


def _embedded(scale: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    return (guidance_embedding(scale, dim) if scale.ndim == 1 else scale).to(dtype)


def _cast(x: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if x is None else x.to(dtype)
