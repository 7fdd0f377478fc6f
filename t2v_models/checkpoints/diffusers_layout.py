"""diffusers' layout: UNet3DConditionModel's names, and the config.json that belongs to them.

What diffusers' class lacks (frame rate embedding, relative positions, image attention …) gets names of the same style,
so that every model of the family can be kept in a diffusers folder.
"""

from __future__ import annotations

import re
from typing import Any

from ..unet import UNet3D, UNetConfig
from .configs import is_number
from .layouts import MOST_BLOCKS, Layout, MissingKey, Shape, Shapes, any_with, size_of

_ROOTS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "fps_embedding.0": "fps_embedding.linear_1",
    "fps_embedding.2": "fps_embedding.linear_2",
    "time_cond_proj": "time_embedding.cond_proj",
    "input_blocks.0.0": "conv_in",
    "init_attn": "transformer_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
    "image_branches.local_image_concat": "image_latents_proj_in",
    "image_branches.local_temporal_encoder.norm": "image_latents_temporal_encoder.norm1",
    "image_branches.local_temporal_encoder.attn": "image_latents_temporal_encoder.attn1",
    "image_branches.local_temporal_encoder.ff.0": "image_latents_temporal_encoder.ff.net.0.proj",
    "image_branches.local_temporal_encoder.ff.2": "image_latents_temporal_encoder.ff.net.2",
    "image_branches.local_image_embedding": "image_latents_context_embedding",
    "image_branches.context_embedding": "context_embedding",
}
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}


def rename(name: str, config: UNetConfig) -> str:
    """Return diffusers' name of a canonical one."""
    if config.image_branches and name.startswith("fps_embedding."):
        return name  # I2VGenXLUNet has numbers where diffusers' other embeddings have names
    for ours, theirs in _ROOTS.items():
        if name.startswith(ours + "."):
            return theirs + name.removeprefix(ours)
    blocks = config.num_res_blocks + 1
    if name.startswith("input_blocks."):
        _, number, layer, rest = name.split(".", 3)
        level, i = divmod(int(number) - 1, blocks)
        if rest.startswith("op."):
            return f"down_blocks.{level}.downsamplers.0.conv.{rest.removeprefix('op.')}"
        return f"down_blocks.{level}." + _in_block(layer, i, rest)
    if name.startswith("output_blocks."):
        _, number, layer, rest = name.split(".", 3)
        level, i = divmod(int(number), blocks)
        if rest.startswith("conv."):
            return f"up_blocks.{level}.upsamplers.0.{rest}"
        return f"up_blocks.{level}." + _in_block(layer, i, rest)
    if name.startswith("middle_block."):
        _, layer, rest = name.split(".", 2)
        return "mid_block." + (_in_block("0", 1, rest) if layer == "2" else _in_block(layer, 0, rest))
    return name  # motion_cond_proj, combine_proj


def _in_block(layer: str, i: int, rest: str) -> str:
    """Return diffusers' name of the i-th resnet, attention or convolution within a block."""
    if layer == "1":
        return f"attentions.{i}.{rest}"
    if layer == "temporal":
        return f"temp_attentions.{i}.{rest}"
    if rest.startswith("temporal_conv."):
        return f"temp_convs.{i}.{rest.removeprefix('temporal_conv.')}"
    for ours, theirs in _RESNET.items():
        if rest.startswith(ours + "."):
            return f"resnets.{i}.{theirs}{rest.removeprefix(ours)}"
    return f"resnets.{i}.{rest}"


def reshape(name: str, shape: Shape) -> Shape:
    """Return diffusers' shape of a tensor: temporal convolutions are Conv3d."""
    return (*shape, 1) if ".temporal_conv." in name and len(shape) == 4 else shape


def infer(shapes: Shapes) -> dict[str, Any]:
    """Infer the fields of a UNetConfig from names and shapes.

    Raises:
        MissingKey: where a tensor is missing that a field needs.
    """
    levels = 1 + max((int(m[1]) for n in shapes if (m := re.match(r"down_blocks\.(\d{1,3})\.", n))), default=-1)
    if levels > MOST_BLOCKS:
        raise MissingKey(f"{levels} levels, and {MOST_BLOCKS} are possible")
    if not levels:
        raise MissingKey("missing: down_blocks.0.resnets.0.conv1.weight")
    resnets = {int(m[1]) for n in shapes if (m := re.match(r"down_blocks\.0\.resnets\.(\d{1,3})\.", n))}
    relative = [shape for name, shape in shapes.items() if name.endswith("relative_position_k.weight")]
    initial = any_with(shapes, "transformer_in.")
    fields: dict[str, Any] = {
        "in_channels": size_of(shapes, ("conv_in.weight", 1)),
        "out_channels": size_of(shapes, ("conv_out.weight", 0), ("conv_out.bias", 0)),
        "channels": tuple(_block_width(shapes, f"down_blocks.{level}.resnets.0") for level in range(levels)),
        "num_res_blocks": max(resnets, default=-1) + 1,
        "attention_levels": tuple(any_with(shapes, f"down_blocks.{level}.attentions.") for level in range(levels)),
        "context_dim": size_of(
            shapes, *((f"mid_block.attentions.0.transformer_blocks.0.attn2.to_{x}.weight", 1) for x in "kv")
        ),
        "init_attention": initial,
        "temporal_attention": any_with(shapes, "mid_block.temp_attentions."),
        "temporal_convolution": any_with(shapes, ".temp_convs."),
        "relative_position": (relative[0][0] - 1) // 2 if relative and len(relative[0]) == 2 else 0,
        "fps_embedding": any_with(shapes, "fps_embedding."),
        "guidance_dim": shapes.get("time_embedding.cond_proj.weight", (0, 0))[-1],
        "motion_dim": shapes.get("motion_cond_proj.weight", (0, 0))[-1],
        "image_attention": any_with(shapes, ".attn2.to_k_ip."),
        "image_scale": any_with(shapes, ".attn2.image_scale."),
        "image_branches": any_with(shapes, "image_latents_proj_in."),
    }
    if relative and len(relative[0]) == 2:
        fields["head_dim"] = relative[0][1]
    if initial:
        fields["init_width"] = size_of(
            shapes,
            ("transformer_in.proj_in.bias", 0),
            ("transformer_in.proj_out.weight", 1),
            ("transformer_in.transformer_blocks.0.norm1.weight", 0),
        )
    return fields


def _block_width(shapes: Shapes, block: str) -> int:
    """Return the channels of a resnet."""
    names = ("conv1.weight", "conv1.bias", "time_emb_proj.bias", "norm2.weight", "conv2.bias")
    return size_of(shapes, *((f"{block}.{name}", 0) for name in names))


def config_hints(config: dict[str, Any]) -> dict[str, Any]:
    """Read from a config.json the fields of a UNetConfig that do not follow from shapes; impossible values are ignored."""
    hints: dict[str, Any] = {}
    head_dim = config.get("attention_head_dim")
    if isinstance(head_dim, (list, tuple)) and head_dim and all(item == head_dim[0] for item in head_dim):
        head_dim = head_dim[0]
    for field, value, types in (
        ("head_dim", head_dim, int),
        ("norm_groups", config.get("norm_num_groups"), int),
        ("norm_eps", config.get("norm_eps"), (int, float)),
        ("default_fps", config.get("default_fps"), (int, float)),
    ):
        if isinstance(value, types) and is_number(value) and value > 0:
            hints[field] = value
    return hints


def class_name(config: UNetConfig) -> str:
    """Return the name of diffusers' class for a UNet; our own where it has none."""
    plain = config.init_attention and config.temporal_attention and config.temporal_convolution
    if not plain or config.relative_position or config.motion_dim or config.image_attention:
        return UNet3D.__name__
    if config.image_branches:
        return "I2VGenXLUNet" if config.fps_embedding and not config.guidance_dim else UNet3D.__name__
    return UNet3D.__name__ if config.fps_embedding else "UNet3DConditionModel"


def to_json(config: UNetConfig, **extra: Any) -> dict[str, Any]:
    """Return the config.json of a diffusers UNet folder; `extra` are further entries (sample_size, …).

    A model that none of diffusers' classes can compute gets our class's name, so that diffusers refuses it.
    """
    down = ["CrossAttnDownBlock3D" if attention else "DownBlock3D" for attention in config.attention_levels]
    up = ["CrossAttnUpBlock3D" if attention else "UpBlock3D" for attention in reversed(config.attention_levels)]
    values: dict[str, Any] = {
        "_class_name": class_name(config),
        "act_fn": "silu",
        "attention_head_dim": config.head_dim,
        "block_out_channels": list(config.channels),
        "cross_attention_dim": config.context_dim,
        "down_block_types": down,
        "in_channels": config.in_channels // 2 if config.image_branches else config.in_channels,
        "layers_per_block": config.num_res_blocks,
        "norm_eps": config.norm_eps,
        "norm_num_groups": config.norm_groups,
        "out_channels": config.out_channels,
        "up_block_types": up,
    }
    if config.guidance_dim:
        values["time_cond_proj_dim"] = config.guidance_dim
    if config.fps_embedding:
        values["default_fps"] = config.default_fps
    return values | extra


LAYOUT = Layout("diffusers", "diffusers' layout", rename, reshape, infer)
