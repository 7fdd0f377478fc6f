"""From a name in the model folders to MODEL, CLIP and VAE."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import comfy.utils
import torch

from ...t2v_models import checkpoints
from ...t2v_models.errors import T2VError
from ...t2v_models.pipeline import BUILT_IN as BUILT_IN_FOLDER
from . import folders
from .model import DTYPES, load_model
from .text_encoder import load_clip
from .vae import load_vae

log = logging.getLogger(__name__)


def load(name: str, weight_dtype: str, text_encoder: str, vae: str) -> tuple[Any, Any, Any]:
    """MODEL, CLIP and VAE of a listed model; CLIP or VAE are None where neither the model nor the choice has one."""
    path = BUILT_IN_FOLDER if name == folders.BUILT_IN else folders.model_path(name)
    encoder_path = None if text_encoder == folders.FROM_MODEL else folders.file_path("text_encoders", text_encoder)
    vae_path = None if vae == folders.FROM_MODEL else folders.file_path("vae", vae)
    log.info("T2VModelLoader: loading %s", path)
    model = load_unet(path, DTYPES[weight_dtype])
    return model, load_text_encoder(path, encoder_path), load_autoencoder(path, vae_path)


def load_unet(path: Path, dtype: torch.dtype | None, disable_dynamic: bool = False) -> Any:
    """The MODEL of a checkpoint."""
    checkpoint = checkpoints.open_checkpoint(path)
    info = checkpoint.info
    if "unet" not in info.parts:
        raise T2VError(f"{path.name} holds no video UNet ({', '.join(info.parts) or 'nothing known'}): choose another.")
    scale_factor = checkpoint.vae_config().get("scaling_factor", 0.18215) if "vae" in info.parts else 0.18215
    return load_model(
        checkpoint.unet(),
        checkpoint.config,
        info,
        checkpoint.scheduler_config(),
        scale_factor=scale_factor,
        dtype=dtype,
        reload=(load_unet, (path, dtype)),
        disable_dynamic=disable_dynamic,
    )


def load_text_encoder(path: Path, other: Path | None = None, disable_dynamic: bool = False) -> Any:
    """The CLIP in or beside a checkpoint, or in another file."""
    if other is not None:
        state_dict = comfy.utils.load_torch_file(str(other), safe_load=True)
        clip = load_clip(state_dict, disable_dynamic=disable_dynamic)
    else:
        checkpoint = checkpoints.open_checkpoint(path)
        if "text_encoder" not in checkpoint.info.parts:
            return None
        config, tokenizer = checkpoint.text_encoder_config(), checkpoint.tokenizer_path
        clip = load_clip(dict(checkpoint.text_encoder()), config, tokenizer, disable_dynamic)
    clip.patcher.cached_patcher_init = (_text_encoder_patcher, (path, other))
    return clip


def load_autoencoder(path: Path, other: Path | None = None) -> Any:
    """The VAE in or beside a checkpoint, or in another file."""
    if other is not None:
        state_dict = comfy.utils.load_torch_file(str(other), safe_load=True)
        prefix = "first_stage_model."
        if any(key.startswith(prefix) for key in state_dict):
            state_dict = comfy.utils.state_dict_prefix_replace(state_dict, {prefix: ""}, filter_keys=True)
        vae = load_vae(state_dict)
    else:
        checkpoint = checkpoints.open_checkpoint(path)
        if "vae" not in checkpoint.info.parts:
            return None
        vae = load_vae(dict(checkpoint.vae()), checkpoint.vae_config())
    vae.patcher.cached_patcher_init = (_autoencoder_patcher, (path, other))
    return vae


def _text_encoder_patcher(path: Path, other: Path | None, disable_dynamic: bool = False) -> Any:
    return load_text_encoder(path, other, disable_dynamic).patcher


def _autoencoder_patcher(path: Path, other: Path | None, disable_dynamic: bool = False) -> Any:
    return load_autoencoder(path, other).patcher
