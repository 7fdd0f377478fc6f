"""Random weights of a small model in every layout, for tests of reading and converting."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save_file

from t2v_models.checkpoints import LAYOUTS, diffusers_layout, image_encoder, text_encoder, vae
from t2v_models.checkpoints.tensors import as_lazy, load_all
from t2v_models.image.resampler import ResamplerConfig
from t2v_models.unet import UNet3D, UNetConfig

SMALL = UNetConfig(channels=(32, 64), attention_levels=(True, False), num_res_blocks=1, context_dim=64,
                   head_dim=32, init_heads=8)  # fmt: skip
"""A UNet whose head size follows from its shapes: its first transformer has 8 heads, as in all published models."""

VAE = {"block_out_channels": [32, 64], "layers_per_block": 1, "latent_channels": 4, "in_channels": 3,
       "out_channels": 3, "use_quant_conv": True, "use_post_quant_conv": True,
       "mid_block_add_attention": True}  # fmt: skip
TEXT = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 50,
        "max_position_embeddings": 77}  # fmt: skip
VISION = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_channels": 3, "patch_size": 14,
          "image_size": 224, "projection_dim": 64, "architectures": ["CLIPVisionModelWithProjection"]}  # fmt: skip
RESAMPLER = ResamplerConfig(queries=64, input_dim=64, dim=64, output_dim=64, depth=2, heads=1, feed_forward=256)
"""A Resampler for four frames, 16 tokens for each."""


def random_tensors(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, torch.Tensor]:
    """A normal tensor, of standard deviation 0.1, for each name."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}


@cache
def unet_weights(config: UNetConfig = SMALL) -> dict[str, torch.Tensor]:
    """The UNet's weights by canonical names."""
    return random_tensors({n: tuple(t.shape) for n, t in UNet3D(config, device="meta").state_dict().items()})


@cache
def vae_weights() -> dict[str, torch.Tensor]:
    """The VAE's weights by diffusers' names."""
    return random_tensors(vae.expected_shapes(VAE), 1)


@cache
def text_weights() -> dict[str, torch.Tensor]:
    """The text encoder's weights by transformers' names."""
    return random_tensors(text_encoder.expected_shapes(TEXT), 2)


@cache
def image_encoder_weights() -> dict[str, torch.Tensor]:
    """The image encoder's weights by transformers' names."""
    return random_tensors(image_encoder.expected_shapes(VISION), 3)


@cache
def resampler_weights() -> dict[str, torch.Tensor]:
    """The Resampler's weights by published names."""
    weights = random_tensors(RESAMPLER.shapes(), 4)
    return {"latents": weights.pop("latents.weight")[None], **weights}


def in_layout(layout: str, config: UNetConfig = SMALL, prefix: str = "") -> dict[str, torch.Tensor]:
    """The UNet's weights by a layout's names, each after `prefix`."""
    renamed = LAYOUTS[layout].from_canonical(as_lazy(unet_weights(config)), config)
    return {prefix + name: tensor.contiguous() for name, tensor in load_all(renamed).items()}


def all_in_one(config: UNetConfig = SMALL) -> dict[str, torch.Tensor]:
    """UNet, VAE and text encoder as in VideoCrafter's model.ckpt."""
    tensors = in_layout("videocrafter", config, "model.diffusion_model.")
    ldm = load_all(vae.to_ldm(as_lazy(vae_weights())))
    clip = load_all(text_encoder.to_openclip(as_lazy(text_weights())))
    tensors |= {f"first_stage_model.{name}": tensor for name, tensor in ldm.items()}
    return tensors | {f"cond_stage_model.model.{name}": tensor for name, tensor in clip.items()}


def image_parts() -> dict[str, torch.Tensor]:
    """Image encoder and Resampler as in DynamiCrafter's model.ckpt."""
    vision = load_all(image_encoder.to_openclip(as_lazy(image_encoder_weights())))
    tensors = {f"embedder.model.{name}": tensor.contiguous() for name, tensor in vision.items()}
    return tensors | {f"image_proj_model.{name}": tensor for name, tensor in resampler_weights().items()}


def diffusers_folder(folder: Path, config: UNetConfig = SMALL, variant: str = "", shards: int = 1) -> Path:
    """Write a diffusers model folder, with fp16 weights for variant ".fp16"; returns the folder."""
    parts = {
        "unet": ("diffusion_pytorch_model", in_layout("diffusers", config), diffusers_layout.to_json(config)),
        "vae": ("diffusion_pytorch_model", vae_weights(), {"_class_name": "AutoencoderKL"} | VAE),
        "text_encoder": ("model", text_weights(), TEXT),
    }
    for part, (name, tensors, values) in parts.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / part / "config.json").write_text(json.dumps(values))
        dtype = torch.float16 if variant == ".fp16" else torch.float32
        tensors = {key: tensor.to(dtype).contiguous() for key, tensor in tensors.items()}
        if shards == 1:
            save_file(tensors, folder / part / f"{name}{variant}.safetensors")
            continue
        weight_map = {}
        keys = list(tensors)
        for i in range(shards):
            shard = f"{name}{variant}-{i + 1:05}-of-{shards:05}.safetensors"
            own = keys[i::shards]
            save_file({key: tensors[key] for key in own}, folder / part / shard)
            weight_map |= dict.fromkeys(own, shard)
        (folder / part / f"{name}.safetensors.index{variant}.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "model_index.json").write_text(json.dumps({"unet": ["models.unet", "UNet3DConditionModel"]}))
    return folder


def same(ours: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], dtype: torch.dtype | None = None) -> bool:
    """Whether two sets of weights are equal bit for bit; `wanted` is converted to `dtype`, else to the type of `ours`."""
    return set(ours) == set(wanted) and all(torch.equal(ours[n], wanted[n].to(dtype or ours[n].dtype)) for n in wanted)
