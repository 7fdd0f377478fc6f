"""A small image model in diffusers' layout as a MODEL of the host, made of core's own UNet.

Core's loaders recognise the published widths only, so the configuration is made here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.model_base
import comfy.model_management
import comfy.supported_models
import comfy.utils
import torch
from torch import Tensor

from ....t2v_models.checkpoints import load_state_dict, open_checkpoint
from ....t2v_models.checkpoints.folders import read_json
from ....t2v_models.errors import T2VError
from .. import compat
from .model import LatentFormat, sampling_settings, set_dtypes


class ImageModelConfig(comfy.supported_models.SD15):
    """The host's description of a small image model, beside Stable Diffusion 1.5's."""

    def __init__(self, unet: dict[str, Any], scheduler: dict[str, Any], latents: LatentFormat) -> None:
        super().__init__(ldm_config(unet))
        self.unet_config |= {"num_heads": unet["attention_head_dim"], "num_head_channels": -1}
        self.velocity = scheduler["prediction_type"] == "v_prediction"
        self.sampling_settings = sampling_settings(scheduler)
        self.latent_format = latents
        self.memory_usage_factor *= unet["block_out_channels"][0] / 320

    def model_type(self, state_dict: dict[str, Tensor], prefix: str = "") -> comfy.model_base.ModelType:
        return comfy.model_base.ModelType.V_PREDICTION if self.velocity else comfy.model_base.ModelType.EPS


def ldm_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of diffusers' UNet2DConditionModel by latent diffusion's names."""
    widths, layers = config["block_out_channels"], config["layers_per_block"]
    attention = [int("CrossAttn" in name) for name in config["down_block_types"]]
    return {
        "image_size": 32,
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "model_channels": widths[0],
        "channel_mult": [width // widths[0] for width in widths],
        "num_res_blocks": [layers] * len(widths),
        "transformer_depth": [depth for depth in attention for _ in range(layers)],
        "transformer_depth_output": [depth for depth in attention for _ in range(layers + 1)],
        "transformer_depth_middle": 1,
        "context_dim": config["cross_attention_dim"],
        "use_spatial_transformer": True,
        "use_linear_in_transformer": False,
        "use_temporal_attention": False,
        "adm_in_channels": None,
        "legacy": False,
    }


def load_image_model(folder: Path, parts: Path, dtype: torch.dtype | None = None, disable_dynamic: bool = False) -> Any:
    """Load the MODEL of a folder with diffusers' UNet2DConditionModel.

    Args:
        folder: with the UNet.
        parts: the folder of the model whose noise schedule and autoencoder it has.
        dtype: of the stored weights; None: the host's choice.
        disable_dynamic: whether weights must not be loaded on use only.

    Raises:
        T2VError: where the weights do not fit the UNet.
    """
    source, unet = open_checkpoint(parts), folder / "unet"
    latents = LatentFormat(source.vae_config()["scaling_factor"], source.family.latent_colours)
    config = ImageModelConfig(read_json(unet / "config.json"), source.scheduler_config(), latents)
    weights = _host_weights(load_state_dict(unet / "diffusion_pytorch_model.safetensors"), config)
    set_dtypes(config, weights, dtype)
    load_device = comfy.model_management.get_torch_device()
    offload_device = comfy.model_management.unet_offload_device()
    model = config.get_model({}, device=offload_device)
    _check_shapes(model.diffusion_model, weights)
    patcher = compat.patcher_for(model, load_device, offload_device, dynamic=not disable_dynamic)
    compat.load_unet_weights(model, patcher, weights)
    model.diffusion_model.eval().requires_grad_(False)
    patcher.cached_patcher_init = (load_image_model, (folder, parts, dtype))
    return patcher


def _host_weights(state_dict: dict[str, Tensor], config: ImageModelConfig) -> dict[str, Tensor]:
    """The weights by the host's names, given diffusers'."""
    names = comfy.utils.unet_to_diffusers(config.unet_config)
    return {names.get(name, name): weight for name, weight in state_dict.items()}


def _check_shapes(network: Any, state_dict: dict[str, Tensor]) -> None:
    """Raise T2VError for missing, unexpected or misshapen weights."""
    wanted = {name: tuple(weight.shape) for name, weight in network.state_dict().items()}
    given = {name: tuple(weight.shape) for name, weight in state_dict.items()}
    wrong = sorted(name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name))
    if wrong:
        raise T2VError(
            f"{len(wrong)} weights of the image model do not fit its configuration, first {wrong[0]}: install the pack again."
        )
