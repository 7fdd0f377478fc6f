"""From a name in the model folders to MODEL, CLIP and VAE."""

from __future__ import annotations

import json
import logging
import types
from pathlib import Path
from typing import Any

import comfy.utils
import torch

from ....t2v_models import checkpoints
from ....t2v_models.checkpoints.files import read_file
from ....t2v_models.checkpoints.tensors import load_all
from ....t2v_models.errors import T2VError
from ....t2v_models.families import Defaults, family_for
from ....t2v_models.loading import BUILT_IN as BUILT_IN_FOLDER
from ....t2v_models.unet import UNetConfig
from . import folders, latent_colours
from .model import CONFIG_KEY, WEIGHT_DTYPES, load_model
from .text_encoder import is_host_native, load_clip
from .vae import host_config, load_vae

log = logging.getLogger(__name__)


def load(name: str, weight_dtype: str, text_encoder: str, vae: str) -> tuple[Any, Any, Any]:
    """MODEL, CLIP and VAE of a listed model; CLIP or VAE are None where neither the model nor the choice has one."""
    path = BUILT_IN_FOLDER if name == folders.BUILT_IN else folders.model_path(name)
    encoder_path = None if text_encoder == folders.FROM_MODEL else folders.file_path("text_encoders", text_encoder)
    vae_path = None if vae == folders.FROM_MODEL else folders.file_path("vae", vae)
    log.info("T2VModelLoader: loading %s", path)
    model = load_unet(path, WEIGHT_DTYPES[weight_dtype])
    clip, vae_ = load_text_encoder(path, encoder_path), load_autoencoder(path, vae_path)
    if vae_ is not None and vae_.own_shape:  # not Stable Diffusion's, whose colours the host knows
        colours = latent_colours.latent_colours(vae_, model.model.latent_format.scale_factor)
        model = _coloured(model, path, WEIGHT_DTYPES[weight_dtype], colours)
    return model, clip, vae_


def _coloured(model: Any, path: Path, dtype: torch.dtype | None, colours: tuple[Any, Any]) -> Any:
    """The MODEL with these colours for its previews, also where the host makes it anew."""
    latent_format = model.model.latent_format
    latent_format.latent_rgb_factors, latent_format.latent_rgb_factors_bias = colours
    model.cached_patcher_init = (_load_coloured, (path, dtype, colours))
    return model


def _load_coloured(
    path: Path, dtype: torch.dtype | None, colours: tuple[Any, Any], disable_dynamic: bool = False
) -> Any:
    return _coloured(load_unet(path, dtype, disable_dynamic), path, dtype, colours)


def load_unet(path: Path, dtype: torch.dtype | None, disable_dynamic: bool = False) -> Any:
    """The MODEL of a checkpoint, or of a file that the host's ModelSave wrote."""
    options = {"dtype": dtype, "reload": (load_unet, (path, dtype)), "disable_dynamic": disable_dynamic}
    saved = saved_model(path)
    if saved is not None:
        state_dict, config = saved
        family = config["family"] if isinstance(config["family"], dict) else {"family": config["family"]}
        info = types.SimpleNamespace(family=family_for(config["unet"], family), defaults=Defaults(**config["defaults"]))
        scale = config["scale_factor"]
        return load_model(state_dict, config["unet"], info, config["scheduler"], scale_factor=scale, **options)
    checkpoint = checkpoints.open_checkpoint(path)
    info = checkpoint.info
    if "unet" not in info.parts:
        raise T2VError(f"{path.name} holds no video UNet ({', '.join(info.parts) or 'nothing known'}): choose another.")
    if info.family.image:
        raise T2VError(
            f"{path.name} is {info.family.title}, which wants a first image, and no node gives it one yet: choose a "
            "text-to-video model."
        )
    scale = checkpoint.vae_config().get("scaling_factor", 0.18215) if "vae" in info.parts else info.family.vae_scale
    scheduler = checkpoint.scheduler_config()
    return load_model(checkpoint.unet(), checkpoint.config, info, scheduler, scale_factor=scale, **options)


def saved_model(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """The UNet and the configuration in a file of the host's ModelSave; None for any other file."""
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    tensors = read_file(path)
    if CONFIG_KEY not in tensors:
        return None
    config = json.loads(bytes(tensors[CONFIG_KEY].load().tolist()))
    config["unet"] = UNetConfig(**config["unet"])
    prefix = "model.diffusion_model."
    unet = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return load_all(unet), config


def load_text_encoder(path: Path, other: Path | None = None, disable_dynamic: bool = False) -> Any:
    """The CLIP in or beside a checkpoint, or in another file."""
    if other is not None:
        state_dict = comfy.utils.load_torch_file(str(other), safe_load=True)
        clip = load_clip(state_dict, disable_dynamic=disable_dynamic)
    else:
        checkpoint = checkpoints.open_checkpoint(path)
        if "text_encoder" not in checkpoint.info.parts:
            return None
        state_dict = dict(checkpoint.text_encoder())
        if saved_model(path) is not None and not is_host_native(state_dict):  # the host saves no tokenizer
            return None
        config, tokenizer = checkpoint.text_encoder_config(), checkpoint.tokenizer_path
        clip = load_clip(state_dict, config, tokenizer, disable_dynamic)
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
        config = checkpoint.vae_config()
        if saved_model(path) is not None and host_config(config) is not None:  # the host saves weights, no config.json
            return None
        vae = load_vae(dict(checkpoint.vae()), config)
    vae.patcher.cached_patcher_init = (_autoencoder_patcher, (path, other))
    return vae


def _text_encoder_patcher(path: Path, other: Path | None, disable_dynamic: bool = False) -> Any:
    return load_text_encoder(path, other, disable_dynamic).patcher


def _autoencoder_patcher(path: Path, other: Path | None, disable_dynamic: bool = False) -> Any:
    return load_autoencoder(path, other).patcher
