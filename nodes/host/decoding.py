"""Clips through the VAE that is wired: that of T2VModelLoader, or one of the host's loaders."""

from __future__ import annotations

from typing import Any

import comfy.utils
import torch
from torch import Tensor

from ...t2v_models.errors import T2VError
from .memory import check_images
from .models import chunked_vae
from .models.reference_vae import PICTURES, ReferenceVAE
from .models.vae import VideoVAE

LOOP = "t2v_loop"
"""A LATENT's key: whether the last frame repeats the first, and is left out of the video."""


def decode(vae: Any, latent: dict[str, Any]) -> Tensor:
    """Decode a LATENT, whose samples are (b, c, t, h, w) or (n, c, h, w), to ((b t), H, W, 3), float, 0..1."""
    latent = without_repeated(latent)
    if isinstance(vae, ReferenceVAE):
        return _seen(vae, latent["samples"], latent.get(PICTURES))
    return chunked_vae.decode(checked_vae(vae), latent["samples"])


def _seen(vae: ReferenceVAE, samples: Tensor, pictures: Tensor | None) -> Tensor:
    """Decode samples, each clip with the pictures at its ends.

    pictures: (n, H, W, 3). With n of at least 3, samples are one video, (1, c, t, h, w), of n - 1 clips of one length that
    share the frames of these pictures; a loop lacks the last of them, which is its first.
    """
    if pictures is None or len(pictures) <= 2 or samples.ndim != 5:
        return vae.decode(samples, pictures=pictures)
    clips, count = len(pictures) - 1, samples.shape[2]
    if looped := (count - 1) % clips != 0:
        samples = torch.cat([samples, samples[:, :, :1]], dim=2)
    step = (samples.shape[2] - 1) // clips
    parts = [
        vae.decode(samples[:, :, i * step : (i + 1) * step + 1], pictures=pictures[i : i + 2])[int(i > 0) :]
        for i in range(clips)
    ]
    return torch.cat(parts)[: -1 if looped else None]


def without_repeated(latent: dict[str, Any]) -> dict[str, Any]:
    """Return a LATENT of clips without their last frame where it repeats the first; any other as it is."""
    samples = latent["samples"]
    if not latent.get(LOOP) or samples.ndim != 5 or samples.shape[2] < 2:
        return latent
    return {**latent, "samples": samples[:, :, :-1], LOOP: False}


def encode(vae: Any, images: Tensor, width: int = 0, height: int = 0) -> Tensor:
    """Encode images, (t, H, W, 3), 0..1, scaled and cropped to a size that is not 0, to one clip, (1, c, t, h, w).

    Raises:
        T2VError: for no images, and for sizes that are no multiple of the VAE's factor, 8.
    """
    checked_vae(vae)
    if images.ndim != 4 or images.shape[0] == 0:
        raise T2VError(f"The images have shape {tuple(images.shape)}: a batch of at least one image is wanted.")
    width, height = width or images.shape[2], height or images.shape[1]
    ratio = vae.spacial_compression_encode()
    if width % ratio or height % ratio:
        nearest = (max(ratio, round(size / ratio) * ratio) for size in (width, height))
        raise T2VError(
            f"The frames are {width}x{height}, and both must be multiples of {ratio}: set width and height, for "
            f"example to {'x'.join(map(str, nearest))}."
        )
    if (images.shape[2], images.shape[1]) != (width, height):
        check_images(2 * len(images), height, width, "encode fewer frames at once, or set a smaller width and height")
        images = comfy.utils.common_upscale(images.movedim(-1, 1), width, height, "lanczos", "center").movedim(1, -1)
    return chunked_vae.encode(vae, images[..., :3])


def checked_vae(vae: Any) -> Any:
    """Return the VAE, if it is one for images, as all of these models have. Raises T2VError where it is not."""
    if vae is None:
        raise T2VError("The loaded model has no VAE: choose one as vae in T2VModelLoader, or wire VAELoader.")
    if isinstance(vae, VideoVAE):
        return vae
    vae.throw_exception_if_invalid()
    if getattr(vae, "latent_dim", 2) != 2 or not hasattr(vae, "decode_tiled_"):
        raise T2VError("This VAE is one for video or audio of another kind: wire the VAE of T2VModelLoader.")
    return vae
