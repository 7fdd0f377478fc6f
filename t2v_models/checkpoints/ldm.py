"""The common part of ModelScope's and VideoCrafter's layouts: latent diffusion's numbered blocks."""

from __future__ import annotations

import re
from typing import Any

from ..unet import UNetConfig
from .layouts import MOST_BLOCKS, MissingKey, Shape, Shapes, any_with, size_of

_INNER = (
    (".temporal_conv.", ".temopral_conv."),  # so spelled in every published file
    (".relative_position_k.weight", ".relative_position_k.embeddings_table"),
    (".relative_position_v.weight", ".relative_position_v.embeddings_table"),
    (".attn2.image_scale.weight", ".attn2.alpha"),
    ("image_branches.local_temporal_encoder.norm.", "local_temporal_encoder.layers.0.0.norm."),
    ("image_branches.local_temporal_encoder.attn.", "local_temporal_encoder.layers.0.0.fn."),
    ("image_branches.local_temporal_encoder.ff.0.", "local_temporal_encoder.layers.0.1.net.0.0."),
    ("image_branches.local_temporal_encoder.ff.2.", "local_temporal_encoder.layers.0.1.net.2."),
    ("image_branches.", ""),
)


def rename(name: str, config: UNetConfig) -> str:
    """Return the numbered name of a canonical one: temporal transformers are layer 2, and what follows is layer 3."""
    for ours, theirs in _INNER:
        name = name.replace(ours, theirs)
    if config.temporal_attention:
        name = re.sub(r"^middle_block\.2\.", "middle_block.3.", name)
        name = re.sub(r"^(output_blocks\.\d+)\.2\.conv\.", r"\1.3.conv.", name)
    return re.sub(r"^(middle_block|(?:input|output)_blocks\.\d+)\.temporal\.", r"\1.2.", name)


def reshape(name: str, shape: Shape) -> Shape:
    """Return the shape of a tensor: temporal convolutions are Conv3d, and the learned image scale is a scalar."""
    if ".temporal_conv." in name and len(shape) == 4:
        return (*shape, 1)
    return () if name.endswith(".image_scale.weight") else shape


def infer(shapes: Shapes) -> dict[str, Any]:
    """Infer the fields of a UNetConfig from names and shapes.

    Raises:
        MissingKey: where a tensor is missing that a field needs.
    """
    levels, attention = _levels(shapes)
    middle = _groups(shapes, "middle_block")
    initial = next((p for p in ("input_blocks.0.1", "init_attn.0") if any(n.startswith(f"{p}.") for n in shapes)), None)
    relative = [shape for name, shape in shapes.items() if name.endswith("relative_position_k.embeddings_table")]
    fields: dict[str, Any] = {
        "in_channels": size_of(shapes, ("input_blocks.0.0.weight", 1)),
        "out_channels": size_of(shapes, ("out.2.weight", 0), ("out.2.bias", 0)),
        "channels": tuple(_block_width(shapes, f"input_blocks.{blocks[0]}.0") for blocks in levels),
        "num_res_blocks": len(levels[0]),
        "attention_levels": attention,
        "context_dim": size_of(
            shapes, *((f"middle_block.1.transformer_blocks.0.attn2.to_{x}.weight", 1) for x in "kv")
        ),
        "init_attention": initial is not None,
        "temporal_attention": any("transformer_blocks" in n or n.startswith("proj_") for n in middle.get(2, ())),
        "temporal_convolution": any_with(shapes, ".temopral_conv."),
        "relative_position": (relative[0][0] - 1) // 2 if relative and len(relative[0]) == 2 else 0,
        "fps_embedding": any_with(shapes, "fps_embedding."),
        "guidance_dim": shapes.get("time_cond_proj.weight", (0, 0))[-1],
        "motion_dim": shapes.get("motion_cond_proj.weight", (0, 0))[-1],
        "image_attention": any_with(shapes, ".attn2.to_k_ip."),
        "image_scale": any(name.endswith(".attn2.alpha") for name in shapes),
        "image_branches": any_with(shapes, "local_image_concat."),
    }
    if relative and len(relative[0]) == 2:
        fields["head_dim"] = relative[0][1]
    if initial:
        fields["init_width"] = size_of(
            shapes,
            (f"{initial}.proj_in.bias", 0),
            (f"{initial}.proj_out.weight", 1),
            (f"{initial}.transformer_blocks.0.norm1.weight", 0),
        )
    return fields


def _levels(shapes: Shapes) -> tuple[list[list[int]], tuple[bool, ...]]:
    """Return the numbers of the input blocks of each resolution, and whether a resolution has attention."""
    groups = _groups(shapes, "input_blocks")
    if not groups or 0 not in groups:
        raise MissingKey("missing: input_blocks.0.0.weight")
    levels: list[list[int]] = [[]]
    for index in sorted(groups)[1:]:
        if any(layer.startswith(("op.", "0.op.")) for layer in groups[index]):
            levels.append([])
        else:
            levels[-1].append(index)
    levels = [blocks for blocks in levels if blocks]
    if len(levels) > MOST_BLOCKS:
        raise MissingKey(f"{len(levels)} levels, and {MOST_BLOCKS} are possible")
    if not levels:
        raise MissingKey("missing: input_blocks.1.0.in_layers.2.weight")
    return levels, tuple(any("transformer_blocks" in layer for i in blocks for layer in groups[i]) for blocks in levels)


def _groups(shapes: Shapes, root: str) -> dict[int, list[str]]:
    """Map the number of each block to the names of its layers."""
    groups: dict[int, list[str]] = {}
    for name in shapes:
        match = re.match(rf"{root}\.(\d{{1,3}})\.(.*)", name)
        if match:
            groups.setdefault(int(match[1]), []).append(match[2])
    return groups


def _block_width(shapes: Shapes, block: str) -> int:
    """Return the channels of a resnet."""
    names = ("in_layers.2.weight", "in_layers.2.bias", "emb_layers.1.bias", "out_layers.0.weight", "out_layers.3.bias")
    return size_of(shapes, *((f"{block}.{name}", 0) for name in names))
