"""UNet3D as a MODEL of the host: model config, BaseModel, ModelPatcher."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.supported_models_base
import comfy.utils
import torch
from torch import Tensor

from ....t2v_models.checkpoints.layouts import canonical_shapes
from ....t2v_models.checkpoints.native import CONFIG_KEY, config_tensor
from ....t2v_models.checkpoints.tensors import DTYPES
from ....t2v_models.errors import T2VError
from ....t2v_models.sampling.guidance import MOTION_GUIDANCE
from ....t2v_models.unet import UNetConfig
from .. import compat, stories
from . import checks, controlnet, guidance, pictures, regions
from .image_projector import ImageProjector
from .model_sampling import family_schedule, is_scaled, make_model_sampling
from .unet import HostUNet3D

log = logging.getLogger(__name__)

WEIGHT_DTYPES: dict[str, torch.dtype | None] = {
    "default": None,
    **DTYPES,
    "fp8_e4m3fn": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}
"""What weight_dtype may be; fp8 is for storage, the computing is done in the type that the device likes."""

MEMORY_FACTOR = 0.9
"""Measured, for a first level of 320 channels: 0.72 for every full-size model, any length, size and batch, counting all
live activations; a fifth more for the workspaces of kernels. See benchmarks/memory_factor.py. An H100 took 0.71 in
fp16, at 16x32x32 and 24x40x72 (benchmarks/unet_cuda.py)."""

PROJECTOR = "image_proj_model."
"""What stands before the names of an image projector's weights in a saved model, as in the published ones."""

_SCHEDULES = {"scaled_linear": "linear", "linear": "sqrt_linear", "squaredcos_cap_v2": "cosine"}
"""The host's names for diffusers' noise schedules, where they differ."""


class LatentFormat(comfy.latent_formats.SD15):
    """Latents of a VAE like Stable Diffusion's, in 4 or 5 dimensions.

    colours: a family's `latent_colours` for previews, else Stable Diffusion's. No TAESD: the host's previewer gives it
    4 dimensions only.
    """

    def __init__(self, scale_factor: float = 0.18215, colours: Sequence[Sequence[float]] | None = None) -> None:
        super().__init__(scale_factor)
        self.taesd_decoder_name = None
        if colours is not None:
            *self.latent_rgb_factors, self.latent_rgb_factors_bias = map(list, colours)


def ldm_config(config: UNetConfig) -> dict[str, Any]:
    """Return the configuration by latent diffusion's names, which the host's LoRA maps and FreeU read."""
    depth = [int(attention) for attention in config.attention_levels for _ in range(config.num_res_blocks)]
    depth_out = [int(attention) for attention in config.attention_levels for _ in range(config.num_res_blocks + 1)]
    return {
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "model_channels": config.channels[0],
        "channel_mult": [width // config.channels[0] for width in config.channels],
        "num_res_blocks": [config.num_res_blocks] * len(config.channels),
        "transformer_depth": depth,
        "transformer_depth_output": depth_out,
        "transformer_depth_middle": 1,
        "context_dim": config.context_dim,
        "use_linear_in_transformer": True,
        "use_temporal_attention": config.temporal_attention,
    }


def sampling_settings(scheduler: dict[str, Any]) -> dict[str, Any]:
    """Return the host's settings of a noise schedule, given diffusers' scheduler_config.json."""
    schedule = scheduler.get("beta_schedule", "scaled_linear")
    return {
        "beta_schedule": _SCHEDULES.get(schedule, schedule),
        "linear_start": scheduler.get("beta_start", 0.00085),
        "linear_end": scheduler.get("beta_end", 0.012),
        "timesteps": scheduler.get("num_train_timesteps", 1000),
        "zsnr": bool(scheduler.get("rescale_betas_zero_snr", False)),
    }


class ModelConfig(comfy.supported_models_base.BASE):
    """The host's description of a model, from which it builds one."""

    unet_extra_config: dict[str, Any] = {}
    latent_format = LatentFormat
    memory_usage_factor = MEMORY_FACTOR

    def __init__(self, config: UNetConfig, info: Any, scheduler: dict[str, Any], scale_factor: float) -> None:
        super().__init__({**ldm_config(config), "unet3d_config": config})
        self.family, self.defaults, self.scheduler = info.family, info.defaults, scheduler
        self.memory_usage_factor = MEMORY_FACTOR * config.channels[0] / 320
        self.latent_format = LatentFormat(scale_factor, info.family.latent_colours)
        self.velocity = scheduler.get("prediction_type", "epsilon") == "v_prediction"
        self.sampling_settings = sampling_settings(scheduler)

    def model_type(self, state_dict: dict[str, Tensor] | None = None, prefix: str = "") -> comfy.model_base.ModelType:
        return comfy.model_base.ModelType.V_PREDICTION if self.velocity else comfy.model_base.ModelType.EPS

    def get_model(self, state_dict: Any = None, prefix: str = "", device: Any = None) -> VideoModel:
        return VideoModel(self, self.model_type(), device=device)

    def inpaint_model(self) -> bool:
        return False


class VideoModel(comfy.model_base.BaseModel):
    """The host's BaseModel around UNet3D."""

    def __init__(self, model_config: ModelConfig, model_type: Any, device: Any = None) -> None:
        super().__init__(model_config, model_type, device=device, unet_model=HostUNet3D)
        self.family, self.defaults = model_config.family, model_config.defaults
        self.scheduler = model_config.scheduler
        self.image_projector: ImageProjector | None = None
        self.diffusion_model.defaults = {
            "fps": self.defaults.fps_condition,
            "guidance": self.defaults.guidance_scale,
            "motion_guidance": MOTION_GUIDANCE,
        }
        self.model_sampling = make_model_sampling(family_schedule(self.scheduler, self.family), model_config)

    def state_dict_for_saving(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Return the weights as the host saves them, and the configuration that shapes do not give."""
        out = super().state_dict_for_saving(*args, **kwargs)
        scaled = is_scaled(self.model_sampling)
        family = self.family if scaled else dataclasses.replace(self.family, scale_base=None)
        config = {
            "unet": dataclasses.asdict(self.diffusion_model.config),
            "scheduler": {name: value for name, value in self.scheduler.items() if scaled or name != "scale_base"},
            "family": {"family": family.name, **dataclasses.asdict(family)},
            "scale_factor": self.latent_format.scale_factor,
        }
        out[CONFIG_KEY] = config_tensor(config)
        if self.image_projector is not None:
            out |= {f"{PROJECTOR}{name}": weight for name, weight in self.image_projector.state_dict().items()}
        return out

    def resize_cond_for_context_window(
        self, cond_key: str, cond_value: Any, window: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Return a conditioning's entry cut to a context window; None leaves it to the host. Newer hosts call this.

        In windows over the frames of clips, a text stays whole, even where it has as many tokens as the clip has frames.
        In windows over a batch of frames, one more frame may stand before each window.
        """
        if window.dim != 0 and "crossattn" in cond_key:
            return cond_value
        if cond_key in pictures.CONDS:
            return pictures.of_window(cond_value, window)
        if window.dim == 0 and cond_key == "num_video_frames":
            anchor = getattr(window, "causal_anchor_index", None)
            return cond_value._copy_with(len(window.index_list) + (anchor is not None and anchor >= 0))
        resize = getattr(super(), "resize_cond_for_context_window", None)
        return resize(cond_key, cond_value, window, *args, **kwargs) if resize is not None else None

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        out = super().extra_conds(**kwargs)
        noise = kwargs["noise"]
        frames = noise.shape[0] if noise.ndim == 4 else noise.shape[2]
        out["num_video_frames"] = comfy.conds.CONDConstant(frames)
        out.update(stories.conds(kwargs))
        out.update(pictures.conds(self, kwargs))
        return out


def set_dtypes(model_config: Any, state_dict: dict[str, Tensor], dtype: torch.dtype | None) -> None:
    """Set the type in which weights are stored, and the one in which the device computes.

    dtype: of the stored weights; None: the host's choice.
    """
    supported = model_config.supported_inference_dtypes
    stored = dtype or _usual_dtype(state_dict, model_config)
    device = comfy.model_management.get_torch_device()
    model_config.set_inference_dtype(stored, comfy.model_management.unet_manual_cast(stored, device, supported))


def _usual_dtype(state_dict: dict[str, Tensor], model_config: Any) -> torch.dtype:
    """The type in which the host would store these weights."""
    return comfy.model_management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(state_dict),
        supported_dtypes=model_config.supported_inference_dtypes,
        weight_dtype=comfy.utils.weight_dtype(state_dict),
    )


def load_model(
    state_dict: dict[str, Tensor],
    config: UNetConfig,
    info: Any,
    scheduler: dict[str, Any],
    *,
    scale_factor: float = 0.18215,
    dtype: torch.dtype | None = None,
    image_projector: dict[str, Tensor] | None = None,
    reload: tuple[Callable, tuple] | None = None,
    disable_dynamic: bool = False,
) -> Any:
    """Make a MODEL of the host (a ModelPatcher) from weights in canonical names.

    Args:
        state_dict, config: of the UNet.
        info: the checkpoint's, with its family and defaults.
        scheduler: diffusers' scheduler_config.json.
        scale_factor: of the VAE's latents.
        dtype: of the stored weights; None: the host's choice.
        image_projector: weights of the network that makes image tokens, if the model has one.
        reload: a function and its arguments that load the patcher from disk again, for the host's multi-GPU and compile
            nodes.
        disable_dynamic: whether weights must not be loaded on use only.

    Raises:
        T2VError: where the weights do not fit the UNet.
    """
    load_device = comfy.model_management.get_torch_device()
    offload_device = comfy.model_management.unet_offload_device()
    model_config = ModelConfig(config, info, scheduler, scale_factor)
    set_dtypes(model_config, state_dict, dtype)
    model = model_config.get_model(device=offload_device)
    _check_names(model.diffusion_model.config, state_dict)
    patcher = compat.patcher_for(model, load_device, offload_device, dynamic=not disable_dynamic)
    compat.load_unet_weights(model, patcher, state_dict)
    model.diffusion_model.requires_grad_(False)
    if image_projector is not None:
        model.image_projector = ImageProjector(image_projector)
    controlnet.register_wrapper(patcher)
    guidance.register_wrapper(patcher)
    checks.register_wrapper(patcher)
    regions.register_wrapper(patcher)
    if reload is not None:
        patcher.cached_patcher_init = reload
    return patcher


def _check_names(config: UNetConfig, state_dict: dict[str, Tensor]) -> None:
    """Raise T2VError for missing, unexpected or misshapen weights; the host only logs them, and would compute with noise."""
    wanted, given = canonical_shapes(config), state_dict
    missing, unexpected = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    if missing or unexpected:
        first = ", ".join(
            [*(f"{key} is missing" for key in missing[:1]), *(f"{key} is not known" for key in unexpected[:1])]
        )
        raise T2VError(
            f"The file does not fit its UNet ({len(missing)} weights missing, {len(unexpected)} too many; {first}): "
            "download it again, or report its name."
        )
    for key, shape in wanted.items():
        if tuple(given[key].shape) != tuple(shape):
            raise T2VError(f"{key} has shape {tuple(given[key].shape)} and {tuple(shape)} is wanted: a damaged file.")


def video_model(patcher: Any) -> VideoModel:
    """Return the VideoModel in a MODEL. Raises T2VError, naming the model, where another kind was wired."""
    model = getattr(patcher, "model", None)
    if isinstance(model, VideoModel):
        return model
    name = type(model).__name__
    raise T2VError(f"The model is {name}, which makes no video here: wire the MODEL of T2VModelLoader.")
