"""An image autoencoder as the host's VAE, whose methods also take clips."""

from __future__ import annotations

from typing import Any

import comfy.diffusers_convert
import comfy.sd
import torch
from torch import Tensor

from ....t2v_models.errors import T2VError
from . import chunked_vae


class VideoVAE(comfy.sd.VAE):
    """The host's VAE, except that decoding also takes clips, and encoding gives one."""

    def decode(self, samples_in: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Decode samples_in, (b, c, t, h, w) or (n, c, h, w), to ((b t), H, W, 3), 0..1."""
        return chunked_vae.decode(self, samples_in)

    def encode(self, pixel_samples: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Encode pixel_samples, (t, H, W, 3), 0..1, as the frames of one clip, (1, c, t, h, w)."""
        return chunked_vae.encode(self, pixel_samples)

    def decode_tiled(self, samples: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Decode like `decode`, in spatial tiles. Frames are independent, so tiles over time are ignored."""
        kwargs.pop("tile_t", None)
        kwargs.pop("overlap_t", None)
        return super().decode_tiled(chunked_vae.checked(self, chunked_vae.fold(samples)), *args, **kwargs)

    def encode_tiled(self, pixel_samples: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Encode like `encode`, in spatial tiles."""
        kwargs.pop("tile_t", None)
        kwargs.pop("overlap_t", None)
        latents = super().encode_tiled(pixel_samples[..., : self.output_channels], *args, **kwargs)
        return latents.movedim(0, 1)[None]


class ImageVAE(VideoVAE):
    """The VAE of an image model: pictures become a batch of latents, (n, c, h, w), as core's nodes want them."""

    def encode(self, pixel_samples: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Encode pixel_samples, (n, H, W, 3), 0..1, as (n, c, h, w)."""
        return super().encode(pixel_samples)[0].movedim(1, 0).contiguous()

    def encode_tiled(self, pixel_samples: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Encode like `encode`, in spatial tiles."""
        return super().encode_tiled(pixel_samples, *args, **kwargs)[0].movedim(1, 0).contiguous()


def host_config(config: dict[str, Any]) -> dict[str, Any] | None:
    """Return the host's parameters for a diffusers AutoencoderKL config.json; None for Stable Diffusion's shape."""
    widths = list(config.get("block_out_channels", (128, 256, 512, 512)))
    layers = config.get("layers_per_block", 2)
    channels = config.get("latent_channels", 4)
    if (widths, layers, channels) == ([128, 256, 512, 512], 2, 4):
        return None
    if any(width % 32 for width in widths):
        raise T2VError(f"The VAE has widths {widths}, and ComfyUI takes multiples of 32 only: load another VAE.")
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
    """Return the weights by the host's names, given diffusers' or the original ones.

    A middle block without attention gets one whose output is zero.
    """
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
    """The weights, if they have at most four resolutions, for which the host's converter numbers the decoder's."""
    if levels > 4:
        raise T2VError(f"The VAE has {levels} levels, and 3D-UNet models use 8 times smaller latents: load another.")
    return state_dict


def _level_down(key: str, missing: int) -> str:
    """decoder.up.N -> decoder.up.N-missing: undo the converter's numbering for four levels."""
    parts = key.split(".")
    if parts[:2] == ["decoder", "up"]:
        parts[2] = str(int(parts[2]) - missing)
    return ".".join(parts)


def load_vae(
    state_dict: dict[str, Tensor], config: dict[str, Any] | None = None, kind: type[VideoVAE] = VideoVAE
) -> VideoVAE:
    """Make the host's VAE from weights in diffusers' or the original names.

    Args:
        state_dict: the weights.
        config: diffusers' config.json, if there is one.
        kind: the class.

    Raises:
        T2VError: where the weights make no image autoencoder.
    """
    config = config or {}
    state_dict = host_state_dict(state_dict)
    wanted = host_config(config)
    if not any(key.startswith("decoder.conv_in.") for key in state_dict):
        raise T2VError("These weights are no image autoencoder (decoder.conv_in is missing): choose another VAE file.")
    vae = kind(sd=state_dict, config=wanted)
    vae.throw_exception_if_invalid()
    vae.latent_channels = state_dict["decoder.conv_in.weight"].shape[1]
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
