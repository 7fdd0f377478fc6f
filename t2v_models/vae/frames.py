"""Frames to latents and back, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .dual_reference import DualReferenceDecoder
from .references import decode_clip, diffusers_features

CHUNK = 8
"""Frames that go through a VAE at a time, for memory."""


def encode_frames(vae: Any, video: Tensor, device: torch.device, *, noise: Tensor | None = None) -> Tensor:
    """Encode videos frame by frame.

    Args:
        vae: diffusers' AutoencoderKL.
        video: (b, t, h, w, 3), 0..1.
        device: of the VAE.
        noise: standard normal, ((b t), 4, h/8, w/8), for a sample of each frame's distribution; its mode where None.

    Returns:
        (b, 4, t, h/8, w/8), float32.
    """
    parts = []
    for i, part in enumerate(torch.split(video.flatten(0, 1), CHUNK)):
        pixels = part.movedim(-1, 1).to(device, vae.dtype) * 2 - 1
        posterior = vae.encode(pixels).latent_dist
        latent = posterior.mode()
        if noise is not None:
            latent = latent + posterior.std * noise[i * CHUNK : (i + 1) * CHUNK].to(latent)
        parts.append(latent.float())
    latents: Tensor = torch.cat(parts) * vae.config.scaling_factor
    return latents.view(*video.shape[:2], *latents.shape[1:]).transpose(1, 2)


def decode_frames(vae: Any, latents: Tensor, device: torch.device, ends: Tensor | None = None) -> Iterator[Tensor]:
    """Decode one video; its frames come on the CPU, a chunk at a time.

    Args:
        vae: diffusers' AutoencoderKL, or one with ToonCrafter's decoder, which makes all frames at once.
        latents: (4, t, h, w).
        device: of the VAE.
        ends: (2, 8h, 8w, 3), 0..1, the first and the last picture, which ToonCrafter's decoder sees.

    Yields:
        (n, 8h, 8w, 3), float32, 0..1.
    """
    sees_clips = isinstance(vae.decoder, DualReferenceDecoder)
    references = None
    if sees_clips and ends is not None:
        references = diffusers_features(vae.encoder, ends.movedim(-1, 1).to(device, vae.dtype) * 2 - 1)
    for part in torch.split(latents.transpose(0, 1), latents.shape[1] if sees_clips else CHUNK):
        z = part.to(device, vae.dtype) / vae.config.scaling_factor
        pixels = decode_clip(vae.decoder, z, references) if sees_clips else vae.decode(z).sample
        yield (pixels.float() / 2 + 0.5).clamp(0, 1).movedim(1, -1).contiguous().cpu()
