"""Clips through any image VAE of the host: its frames are decoded and encoded a few at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from torch import Tensor

from ....t2v_models.errors import T2VError
from .. import compat
from ..memory import check_images

log = logging.getLogger(__name__)

MAX_CHUNK = 8
"""Frames in a chunk at most: progress is shown and a cancel is obeyed between chunks."""


def decode(vae: Any, samples: Tensor) -> Tensor:
    """Decode samples, (b, c, t, h, w) or (n, c, h, w), by a host VAE to ((b t), H, W, 3), float, 0..1.

    Raises:
        T2VError: for latents of another number of channels, and where the images do not fit the memory.
    """
    vae.throw_exception_if_invalid()
    frames = checked(vae, fold(samples))
    chunk = frames_at_once(vae, vae.memory_used_decode, frames)
    ratio = vae.spacial_compression_decode()
    size = (frames.shape[2] * ratio, frames.shape[3] * ratio, vae.output_channels)
    check_images(len(frames), *size[:2], "wire latent and vae to T2VSaveVideo, which decodes as it writes")
    pixels = torch.empty((len(frames), *size), dtype=compat.intermediate_dtype(), device=vae.output_device)

    def work(start: int, end: int) -> None:
        latent = frames[start:end].to(device=vae.device, dtype=vae.vae_dtype)
        pixels[start:end] = vae.process_output(vae.first_stage_model.decode(latent).float()).movedim(1, -1)

    def tiled(start: int) -> None:
        pixels[start] = vae.decode_tiled_(frames[start : start + 1], 32, 32, 8)[0].movedim(0, -1)

    with compat.on_device(vae.device):
        in_chunks(len(frames), chunk, work, tiled)
    return pixels


def encode(vae: Any, images: Tensor) -> Tensor:
    """Encode images, (t, H, W, 3), 0..1, by a host VAE as the frames of one clip, (1, c, t, h, w)."""
    vae.throw_exception_if_invalid()
    images = vae.vae_encode_crop_pixels(images)[..., : vae.output_channels].movedim(-1, 1)
    chunk = frames_at_once(vae, vae.memory_used_encode, images)
    ratio = vae.spacial_compression_encode()
    size = (vae.latent_channels, images.shape[2] // ratio, images.shape[3] // ratio)
    latents = torch.empty((len(images), *size), dtype=compat.intermediate_dtype(), device=vae.output_device)

    def work(start: int, end: int) -> None:
        image = vae.process_input(images[start:end]).to(device=vae.device, dtype=vae.vae_dtype)
        latents[start:end] = vae.first_stage_model.encode(image).to(vae.output_device)

    def tiled(start: int) -> None:
        latents[start] = vae.encode_tiled_(images[start : start + 1], 256, 256, 64)[0]

    with compat.on_device(vae.device):
        in_chunks(len(images), chunk, work, tiled)
    return latents.movedim(0, 1)[None]


def frames_at_once(vae: Any, memory_used: Callable[..., float], frames: Tensor) -> int:
    """Load the VAE's weights; return how many of the frames, (n, c, h, w), then fit the device at once, 1 to MAX_CHUNK.

    memory_used: the VAE's own estimate, memory_used_decode or memory_used_encode.
    """
    needed = max(1, memory_used(frames.shape, vae.vae_dtype))
    comfy.model_management.load_models_gpu([vae.patcher], memory_required=needed)
    return max(1, min(int(compat.free_memory(vae.patcher, vae.device) / needed), MAX_CHUNK, len(frames)))


def fold(samples: Tensor) -> Tensor:
    """Turn clips into frames: (b, c, t, h, w) or (n, c, h, w) -> ((b t), c, h, w)."""
    if samples.ndim == 4:
        return samples
    if samples.ndim != 5:
        raise T2VError(
            f"A latent of shape {tuple(samples.shape)} is no image or video latent: wire one with 4 or 5 dimensions."
        )
    return samples.movedim(2, 1).flatten(0, 1)


def checked(vae: Any, frames: Tensor) -> Tensor:
    """Return the frames, (n, c, h, w). Raises T2VError where the VAE decodes another number of channels."""
    if frames.shape[1] != vae.latent_channels:
        raise T2VError(
            f"The latent has {frames.shape[1]} channels and this VAE decodes {vae.latent_channels}: "
            "wire the latent of a sampler that used a model of the same family."
        )
    return frames


def in_chunks(count: int, chunk: int, work: Callable[[int, int], None], single: Callable[[int], None]) -> None:
    """Call work(start, end) over 0 … count. Where memory runs out, halve the chunk; at one frame call single(start).

    Where one chunk holds all, the caller keeps the progress bar: these may be a few frames of many.
    """
    progress = comfy.utils.ProgressBar(count) if count > chunk else None
    start = 0
    while start < count:
        comfy.model_management.throw_exception_if_processing_interrupted()
        end = min(start + chunk, count)
        out_of_memory = False
        try:
            work(start, end)
        except Exception as error:
            if not compat.is_out_of_memory(error):
                raise
            out_of_memory = True
        if out_of_memory:  # outside the except block, so that the traceback no longer holds the tensors
            comfy.model_management.soft_empty_cache()
            if chunk > 1:
                chunk = max(1, min(chunk, end - start) // 2)
                log.warning("Out of memory: going on with %d frames at a time.", chunk)
                continue
            log.warning("Out of memory at a single frame: going on with tiles.")
            single(start)
        start = end
        if progress is not None:
            progress.update_absolute(start, count)
