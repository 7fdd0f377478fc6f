"""An image autoencoder as the host's VAE, for clips: frames are folded into the batch and worked off in chunks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import comfy.diffusers_convert
import comfy.model_management
import comfy.sd
import comfy.utils
import torch
from torch import Tensor

from ....t2v_models.errors import T2VError
from .. import compat
from ..memory import check_images

log = logging.getLogger(__name__)

MAX_CHUNK = 8
"""Frames a chunk at most: progress is shown and a cancel is seen between chunks."""


def fold(samples: Tensor) -> Tensor:
    """Clips to frames. samples: (b, c, t, h, w) or (b, c, h, w) -> ((b t), c, h, w)."""
    if samples.ndim == 4:
        return samples
    if samples.ndim != 5:
        raise T2VError(
            f"A latent of shape {tuple(samples.shape)} is no image or video latent: wire one with 4 or 5 dimensions."
        )
    return samples.movedim(2, 1).flatten(0, 1)


def in_chunks(count: int, chunk: int, work: Callable[[int, int], None], single: Callable[[int], None]) -> None:
    """Call work(start, end) over 0 … count. Out of memory: half the chunk; at one frame a chunk: single(start).

    A single chunk leaves the progress bar to its caller, who may be at one of many.
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


class VideoVAE(comfy.sd.VAE):
    """The host's VAE, except that every method also takes clips, and encoding gives one."""

    own_shape = False
    """Whether it has another shape, and so other latents, than Stable Diffusion's."""

    def decode(self, samples_in: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """samples_in: (b, c, t, h, w) or (n, c, h, w) -> ((b t), H, W, 3), 0..1."""
        self.throw_exception_if_invalid()
        frames = self._checked(fold(samples_in))
        chunk = self._chunk(self.memory_used_decode, frames, frames.shape)
        ratio = self.spacial_compression_decode()
        size = (frames.shape[2] * ratio, frames.shape[3] * ratio, self.output_channels)
        check_images(len(frames), *size[:2], "wire latent and vae to T2VSaveVideo, which decodes as it writes")
        pixels = torch.empty((len(frames), *size), dtype=compat.intermediate_dtype(), device=self.output_device)

        def work(start: int, end: int) -> None:
            latent = frames[start:end].to(device=self.device, dtype=self.vae_dtype)
            pixels[start:end] = self.process_output(self.first_stage_model.decode(latent).float()).movedim(1, -1)

        def tiled(start: int) -> None:
            pixels[start] = self.decode_tiled_(frames[start : start + 1], 32, 32, 8)[0].movedim(0, -1)

        with compat.on_device(self.device):
            in_chunks(len(frames), chunk, work, tiled)
        return pixels

    def encode(self, pixel_samples: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """pixel_samples: (t, H, W, 3), 0..1 -> (1, c, t, h, w): the images are the frames of one clip."""
        self.throw_exception_if_invalid()
        images = self.vae_encode_crop_pixels(pixel_samples)[..., : self.output_channels].movedim(-1, 1)
        chunk = self._chunk(self.memory_used_encode, images, images.shape)
        ratio = self.spacial_compression_encode()
        size = (self.latent_channels, images.shape[2] // ratio, images.shape[3] // ratio)
        latents = torch.empty((len(images), *size), dtype=compat.intermediate_dtype(), device=self.output_device)

        def work(start: int, end: int) -> None:
            image = self.process_input(images[start:end]).to(device=self.device, dtype=self.vae_dtype)
            latents[start:end] = self.first_stage_model.encode(image).to(self.output_device)

        def tiled(start: int) -> None:
            latents[start] = self.encode_tiled_(images[start : start + 1], 256, 256, 64)[0]

        with compat.on_device(self.device):
            in_chunks(len(images), chunk, work, tiled)
        return latents.movedim(0, 1)[None]

    def decode_tiled(self, samples: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """As decode, in spatial tiles; frames are independent, so tiles over time mean nothing here."""
        kwargs.pop("tile_t", None)
        kwargs.pop("overlap_t", None)
        return super().decode_tiled(self._checked(fold(samples)), *args, **kwargs)

    def encode_tiled(self, pixel_samples: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """As encode, in spatial tiles."""
        kwargs.pop("tile_t", None)
        kwargs.pop("overlap_t", None)
        latents = super().encode_tiled(pixel_samples[..., : self.output_channels], *args, **kwargs)
        return latents.movedim(0, 1)[None]

    def _checked(self, frames: Tensor) -> Tensor:
        if frames.shape[1] != self.latent_channels:
            raise T2VError(
                f"The latent has {frames.shape[1]} channels and this VAE decodes {self.latent_channels}: "
                "wire the latent of a sampler that used a model of the same family."
            )
        return frames

    def _chunk(self, memory_used: Callable, batch: Tensor, shape: torch.Size) -> int:
        """Load the weights; how many frames then fit at once."""
        needed = max(1, memory_used(shape, self.vae_dtype))
        comfy.model_management.load_models_gpu([self.patcher], memory_required=needed)
        return max(1, min(int(compat.free_memory(self.patcher, self.device) / needed), MAX_CHUNK, len(batch)))


def host_config(config: dict[str, Any]) -> dict[str, Any] | None:
    """The host's parameters of an AutoencoderKL in diffusers' config.json; None for those of Stable Diffusion."""
    widths = list(config.get("block_out_channels", (128, 256, 512, 512)))
    layers = config.get("layers_per_block", 2)
    channels = config.get("latent_channels", 4)
    if (widths, layers, channels) == ([128, 256, 512, 512], 2, 4):
        return None
    if any(width % 32 for width in widths):
        raise T2VError(f"The VAE has widths {widths}, and ComfyUI runs multiples of 32 only: load another VAE.")
    ddconfig = {
        "double_z": True,
        "z_channels": channels,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": widths[0],
        "ch_mult": [width // widths[0] for width in widths],
        "num_res_blocks": layers,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    return {"params": {"ddconfig": ddconfig, "embed_dim": channels}}


def host_state_dict(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Diffusers' names to the host's; other names pass. A middle without attention gets one that adds nothing."""
    if "decoder.up_blocks.0.resnets.0.norm1.weight" in state_dict:
        levels = 1 + max(int(key.split(".")[2]) for key in state_dict if key.startswith("decoder.up_blocks."))
        state_dict = comfy.diffusers_convert.convert_vae_state_dict(_four_levels(state_dict, levels))
        if levels != 4:
            state_dict = {_level_down(key, 4 - levels): value for key, value in state_dict.items()}
    for side in ("encoder", "decoder"):
        prefix = f"{side}.mid.attn_1"
        if f"{side}.mid.block_1.norm1.weight" in state_dict and f"{prefix}.norm.weight" not in state_dict:
            norm = state_dict[f"{side}.mid.block_1.norm1.weight"]
            state_dict = {**state_dict, **_no_attention(prefix, norm)}
    return state_dict


def _no_attention(prefix: str, like: Tensor) -> dict[str, Tensor]:
    """The weights of an attention block whose output is zero."""
    width = like.shape[0]
    out = {f"{prefix}.norm.weight": torch.ones_like(like), f"{prefix}.norm.bias": torch.zeros_like(like)}
    for name in ("q", "k", "v", "proj_out"):
        out[f"{prefix}.{name}.weight"] = like.new_zeros(width, width, 1, 1)
        out[f"{prefix}.{name}.bias"] = like.new_zeros(width)
    return out


def _four_levels(state_dict: dict[str, Tensor], levels: int) -> dict[str, Tensor]:
    """The host's converter numbers the decoder's levels for exactly four."""
    if levels > 4:
        raise T2VError(f"The VAE has {levels} levels, and 3D-UNet models use 8 times smaller latents: load another.")
    return state_dict


def _level_down(key: str, missing: int) -> str:
    """decoder.up.N -> decoder.up.N-missing: undo the converter's numbering for four levels."""
    parts = key.split(".")
    if parts[:2] == ["decoder", "up"]:
        parts[2] = str(int(parts[2]) - missing)
    return ".".join(parts)


def load_vae(state_dict: dict[str, Tensor], config: dict[str, Any] | None = None) -> VideoVAE:
    """The host's VAE from weights in diffusers' or the original names. config: diffusers' config.json, if any."""
    config = config or {}
    state_dict = host_state_dict(state_dict)
    wanted = host_config(config)
    if not any(key.startswith("decoder.conv_in.") for key in state_dict):
        raise T2VError("These weights are no image autoencoder (decoder.conv_in is missing): choose another VAE file.")
    vae = VideoVAE(sd=state_dict, config=wanted)
    vae.throw_exception_if_invalid()
    vae.latent_channels = state_dict["decoder.conv_in.weight"].shape[1]
    vae.own_shape = wanted is not None
    if wanted is not None:
        vae.downscale_ratio = vae.upscale_ratio = 2 ** (len(wanted["params"]["ddconfig"]["ch_mult"]) - 1)
    groups = config.get("norm_num_groups", 32)
    for module in vae.first_stage_model.modules():
        if groups != 32 and isinstance(module, torch.nn.GroupNorm):
            module.num_groups = groups
    missing = set(vae.first_stage_model.state_dict()) - set(state_dict)
    if missing:
        raise T2VError(
            f"The VAE lacks {len(missing)} weights, first {min(missing)}: the file is incomplete, get it again."
        )
    return vae
