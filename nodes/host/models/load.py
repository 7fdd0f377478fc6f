"""From a name in the model folders to MODEL, CLIP and VAE."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import comfy.utils
import torch

from ....t2v_models.builtin_model import BUILT_IN_FOLDER, IMAGE_BUILT_IN
from ....t2v_models.checkpoints import Checkpoint, load_state_dict, open_checkpoint
from ....t2v_models.checkpoints.files import reading
from ....t2v_models.checkpoints.wrappers import without_wrappers
from ....t2v_models.errors import T2VError
from ....t2v_models.families import FAMILIES
from . import folders
from .clip_vision import load_clip_vision
from .image_model import load_image_model
from .model import WEIGHT_DTYPES, load_model
from .reference_vae import load_vae
from .text_encoder import is_host_native, load_clip
from .vae import ImageVAE, host_config
from .vae import load_vae as load_plain_vae

log = logging.getLogger(__name__)


FAMILY_NAMES = tuple(FAMILIES)
"""What family may be, beside `folders.FROM_MODEL`."""


def load(
    name: str, weight_dtype: str, text_encoder: str, vae: str, family: str = folders.FROM_MODEL
) -> tuple[Any, Any, Any, Any]:
    """Load MODEL, CLIP, VAE and CLIP_VISION of a listed model.

    CLIP, VAE and CLIP_VISION are None where neither the model nor the choice has one.

    Raises:
        T2VError: where a file is gone or damaged, or is no text-to-video model.
    """
    path = folders.model_path(name)
    encoder_path = None if text_encoder == folders.FROM_MODEL else folders.file_path("text_encoders", text_encoder)
    vae_path = None if vae == folders.FROM_MODEL else folders.file_path("vae", vae)
    log.info("T2VModelLoader: loading %s", path)
    if name == IMAGE_BUILT_IN:
        return (
            load_image_model(path, BUILT_IN_FOLDER, WEIGHT_DTYPES[weight_dtype]),
            load_text_encoder(BUILT_IN_FOLDER) if encoder_path is None else load_other_text_encoder(encoder_path),
            load_image_autoencoder(BUILT_IN_FOLDER) if vae_path is None else load_other_autoencoder(vae_path),
            None,
        )
    named = None if family in (folders.FROM_MODEL, None) else family
    checkpoint = open_checkpoint(path, family=named)
    return (
        _unet(checkpoint, path, WEIGHT_DTYPES[weight_dtype], named),
        _text_encoder(checkpoint, path) if encoder_path is None else load_other_text_encoder(encoder_path),
        _autoencoder(checkpoint, path) if vae_path is None else load_other_autoencoder(vae_path),
        _image_encoder(checkpoint, path),
    )


def load_unet(path: Path, dtype: torch.dtype | None, family: str | None = None, disable_dynamic: bool = False) -> Any:
    """Load the MODEL of a checkpoint, or of a file that the host's ModelSave wrote. family: see `open_checkpoint`."""
    return _unet(open_checkpoint(path, family=family), path, dtype, family, disable_dynamic)


def load_text_encoder(path: Path, disable_dynamic: bool = False) -> Any:
    """Load the CLIP in or beside a checkpoint; None where it has none."""
    return _text_encoder(open_checkpoint(path), path, disable_dynamic)


def load_other_text_encoder(path: Path, disable_dynamic: bool = False) -> Any:
    """Load a CLIP from a file that holds nothing else."""
    with reading(path):
        clip = load_clip(_other(path), disable_dynamic=disable_dynamic)
    return _reloaded_by(clip, load_other_text_encoder, path)


def load_autoencoder(path: Path, disable_dynamic: bool = False) -> Any:
    """Load the VAE in or beside a checkpoint; None where it has none. disable_dynamic: VAEs are never dynamic."""
    return _autoencoder(open_checkpoint(path), path)


def load_image_autoencoder(path: Path, disable_dynamic: bool = False) -> Any:
    """Load the VAE beside a checkpoint for an image model, see `ImageVAE`."""
    checkpoint = open_checkpoint(path)
    made = load_plain_vae(dict(checkpoint.vae()), checkpoint.vae_config(), ImageVAE)
    return _reloaded_by(made, load_image_autoencoder, path)


def load_other_autoencoder(path: Path, disable_dynamic: bool = False) -> Any:
    """Load a VAE from a file of its own, or from a whole Stable Diffusion checkpoint."""
    state_dict = _other(path)
    prefix = "first_stage_model."
    if any(key.startswith(prefix) for key in state_dict):
        state_dict = comfy.utils.state_dict_prefix_replace(state_dict, {prefix: ""}, filter_keys=True)
    with reading(path):
        return _reloaded_by(load_vae(state_dict), load_other_autoencoder, path)


def _other(path: Path) -> dict[str, torch.Tensor]:
    """Read a file that is not a whole model, without running code in it, by its names without wrappers."""
    return without_wrappers(load_state_dict(path), around=True)


def _unet(
    checkpoint: Checkpoint, path: Path, dtype: torch.dtype | None, family: str | None, disable_dynamic: bool = False
) -> Any:
    info = checkpoint.info
    if "unet" not in info.parts:
        raise T2VError(f"{path.name} holds no video UNet ({', '.join(info.parts) or 'nothing known'}): choose another.")
    checkpoint.warn_of_other_families()
    scale = checkpoint.vae_config().get("scaling_factor", 0.18215) if "vae" in info.parts else info.family.vae_scale
    return load_model(
        checkpoint.unet(),
        checkpoint.config,
        info,
        checkpoint.scheduler_config(),
        scale_factor=checkpoint.saved.get("scale_factor", scale),
        dtype=dtype,
        image_projector=checkpoint.image_projector(),
        reload=(load_unet, (path, dtype, family)),
        disable_dynamic=disable_dynamic,
    )


def _text_encoder(checkpoint: Checkpoint, path: Path, disable_dynamic: bool = False) -> Any:
    if "text_encoder" not in checkpoint.info.parts:
        return None
    state_dict = dict(checkpoint.text_encoder())
    if checkpoint.saved and not is_host_native(state_dict):  # the host saves no tokenizer
        return None
    config, tokenizer = checkpoint.text_encoder_config(), checkpoint.tokenizer_path
    return _reloaded_by(load_clip(state_dict, config, tokenizer, disable_dynamic), load_text_encoder, path)


def _autoencoder(checkpoint: Checkpoint, path: Path) -> Any:
    if "vae" not in checkpoint.info.parts:
        return None
    config = checkpoint.vae_config()
    if checkpoint.saved and host_config(config) is not None:  # the host saves weights, no config.json
        return None
    return _reloaded_by(load_vae(dict(checkpoint.vae()), config), load_autoencoder, path)


def load_image_encoder(path: Path, disable_dynamic: bool = False) -> Any:
    """Load the CLIP_VISION in a checkpoint; None where it has none. disable_dynamic: the host has no such choice for it."""
    return _image_encoder(open_checkpoint(path), path)


def _image_encoder(checkpoint: Checkpoint, path: Path) -> Any:
    info = checkpoint.info
    if info.family is None or not info.family.image:  # beside a model of texts may lie the whole of CLIP
        return None
    if "image_encoder" in info.parts:
        with reading(path):
            encoder = load_clip_vision(checkpoint.image_encoder(), checkpoint.image_encoder_config())
        return _reloaded_by(encoder, load_image_encoder, path)
    if info.family.image_tokens:
        log.warning(
            "%s has no image encoder: wire OpenCLIP ViT-H from Load CLIP Vision to T2VImageToVideo's clip_vision.",
            path.name,
        )
    return None


def _reloaded_by(loaded: Any, load_again: Any, path: Path) -> Any:
    """Return the CLIP or VAE, with the way in which the host makes its patcher anew, for another device or to compile."""
    loaded.patcher.cached_patcher_init = (_patcher, (load_again, path))
    return loaded


def _patcher(load_again: Any, path: Path, disable_dynamic: bool = False) -> Any:
    return load_again(path, disable_dynamic).patcher
