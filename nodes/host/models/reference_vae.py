"""ToonCrafter's autoencoder as the host's VAE: it decodes whole clips, and sees the pictures at their ends."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.ops
import torch
from torch import Tensor

from ....t2v_models.checkpoints import dual_decoder
from ....t2v_models.checkpoints import vae as names
from ....t2v_models.checkpoints.tensors import as_lazy, load_all
from ....t2v_models.errors import T2VError
from ....t2v_models.image.fit import fit
from ....t2v_models.vae.dual_reference import DualReferenceDecoder
from ....t2v_models.vae.references import decode_clip, ldm_features
from .. import compat
from ..memory import check_images
from . import chunked_vae, vae
from .unet import host_attention

PICTURES = "t2v_pictures"
"""A LATENT's key for the pictures at the ends of its clips, (2, H, W, 3), 0..1."""

MAPS_AT_ONCE = 10
"""Feature maps of a whole clip at full size that decoding holds at its peak; 9.2 of them were measured on a CPU."""


class ReferenceVAE(vae.VideoVAE):
    """The host's VAE with a `DualReferenceDecoder`, which decodes all frames of a clip at once."""

    def decode(self, samples_in: Tensor, *args: Any, pictures: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Decode clips.

        Args:
            samples_in: (b, c, t, h, w), or the frames of one clip, (t, c, h, w).
            pictures: (2, H, W, 3), 0..1, at the ends of the clips; None decodes without, which loses detail.

        Returns:
            ((b t), H, W, 3), 0..1.

        Raises:
            T2VError: for latents of another kind, and where a whole clip does not fit the memory.
        """
        self.throw_exception_if_invalid()
        clips = samples_in.movedim(0, 1)[None] if samples_in.ndim == 4 else samples_in
        frames = chunked_vae.checked(self, chunked_vae.fold(clips))
        ratio = self.spacial_compression_decode()
        height, width = frames.shape[2] * ratio, frames.shape[3] * ratio
        check_images(len(frames), height, width, "make fewer frames, or a smaller video")
        self._load(clips.shape[2], height, width)
        references = None
        if pictures is not None:
            pictures = fit(pictures, width, height, "stretch").movedim(-1, 1)
            pictures = self.process_input(pictures).to(device=self.device, dtype=self.vae_dtype)
            references = ldm_features(self.first_stage_model.encoder, pictures)
        with compat.on_device(self.device):
            return torch.cat([self._clip(clip, references) for clip in clips.transpose(1, 2)])

    def _load(self, frames: int, height: int, width: int) -> None:
        """Bring the weights to the device, and make room for clips of this size."""
        each = frames * height * width * self.first_stage_model.decoder.config.channels[0] * self.vae_dtype.itemsize
        needed = MAPS_AT_ONCE * each
        comfy.model_management.load_models_gpu([self.patcher], memory_required=needed)

    def _clip(self, latents: Tensor, references: list[Tensor] | None) -> Tensor:
        """Decode one clip, (t, c, h, w) -> (t, H, W, 3), 0..1, on the VAE's output device."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        decoder = self.first_stage_model.decoder
        try:
            pixels = decode_clip(decoder, latents.to(device=self.device, dtype=self.vae_dtype), references)
        except Exception as error:
            if not compat.is_out_of_memory(error):
                raise
            raise T2VError(
                f"{len(latents)} frames, which this VAE decodes at once, do not fit the device's memory: make fewer frames or "
                "a smaller video, or start ComfyUI with --cpu-vae."
            ) from error
        frames = self.process_output(pixels.float()).movedim(1, -1)
        return frames.to(device=self.output_device, dtype=compat.intermediate_dtype())


def load_vae(state_dict: dict[str, Tensor], config: dict[str, Any] | None = None) -> vae.VideoVAE:
    """Make the host's VAE from weights in diffusers' or the original names, whichever decoder they have.

    config: diffusers' config.json, if there is one. Raises T2VError where the weights make no image autoencoder.
    """
    if not dual_decoder.is_dual(state_dict):
        return vae.load_vae(state_dict, config)
    lazy = names.from_ldm(as_lazy(state_dict), "This file")
    decoder = DualReferenceDecoder(
        dual_decoder.config_of(lazy),
        compat.with_fast_norms(comfy.ops.disable_weight_init),
        host_attention,
        device="meta",
    )
    # the host's own decoder of single frames takes its place until the whole is built
    plain = {name: tensor for name, tensor in names.to_ldm(lazy).items() if not dual_decoder.is_beyond_plain(name)}
    made = vae.load_vae(load_all(plain), names.config_of(lazy) | (config or {}), ReferenceVAE)
    weights = {
        name.removeprefix("decoder."): lazy[name].to(made.vae_dtype).load() for name in dual_decoder.split(lazy)[0]
    }
    decoder.load_state_dict(weights, assign=True)
    made.first_stage_model.decoder = decoder.eval().requires_grad_(False)
    made.first_stage_model.post_quant_conv = torch.nn.Identity()  # which its authors never use
    compat.replaced_part(made, decoder)
    return made
