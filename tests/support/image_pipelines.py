"""Tiny image models of diffusers' with random weights, as folders: Stable Diffusion 1.5, XL, and ControlNets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from t2v_models.builtin_model import BUILT_IN_FOLDER

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
UNET = {
    "sample_size": 8,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "attention_head_dim": 2,
    "norm_num_groups": 32,
}
UP = {"up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}


def _tokenizer() -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(BUILT_IN_FOLDER / "tokenizer")


def _text_encoder(width: int, *, projection: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    vocabulary = len(_tokenizer())
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        projection_dim=width,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def _parts(schedule: dict[str, Any]) -> dict[str, Any]:
    from diffusers import AutoencoderKL, DDIMScheduler

    kinds = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    vae = AutoencoderKL(
        down_block_types=kinds[0],
        up_block_types=kinds[1],
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        layers_per_block=1,
        sample_size=64,
    )
    config = {**BETAS, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1, **schedule}
    return {"vae": vae, "tokenizer": _tokenizer(), "scheduler": DDIMScheduler(**config)}


def stable_diffusion(**schedule: Any) -> Any:
    """diffusers' StableDiffusionPipeline; keywords change its schedule."""
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel

    torch.manual_seed(1)
    return StableDiffusionPipeline(
        unet=UNet2DConditionModel(**UNET, **UP, cross_attention_dim=32),
        text_encoder=_text_encoder(32),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **_parts(schedule),
    )


def stable_diffusion_xl(**schedule: Any) -> Any:
    """diffusers' StableDiffusionXLPipeline; keywords change its schedule."""
    from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel

    torch.manual_seed(2)
    unet = UNet2DConditionModel(
        **UNET,
        **UP,
        cross_attention_dim=64,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 32,
        use_linear_projection=True,
    )
    return StableDiffusionXLPipeline(
        unet=unet,
        text_encoder=_text_encoder(32),
        text_encoder_2=_text_encoder(32, projection=True),
        tokenizer_2=_tokenizer(),
        add_watermarker=False,
        **_parts(schedule),
    )


def controlnet(unet: Any, seed: int = 3) -> Any:
    """diffusers' ControlNetModel for a UNet, whose last layers are not zero."""
    from diffusers import ControlNetModel

    torch.manual_seed(seed)
    net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8, 8, 8))
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if "controlnet_" in name:
                weight.normal_(std=0.1)
    return net


def saved(model: Any, folder: Path) -> Path:
    """Save a pipeline or a model as diffusers does."""
    model.save_pretrained(folder, safe_serialization=True)
    return folder


def module_of_diffusers():
    """The module of diffusers' TextToVideoZeroPipeline, which newer versions have in another folder."""
    from diffusers import TextToVideoZeroPipeline

    return sys.modules[TextToVideoZeroPipeline.__module__]
