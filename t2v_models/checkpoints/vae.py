"""The image autoencoder (VAE): latent diffusion's names to those of diffusers' AutoencoderKL, and back."""

from __future__ import annotations

import re
from typing import Any

from . import dual_decoder
from .layouts import Shape, Shapes, check_shapes, count_numbered
from .tensors import LazyDict

_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""diffusers' names of the attention's layers before 2023 -> today's."""


def from_ldm(tensors: LazyDict, source: str) -> LazyDict:
    """Rename latent diffusion's tensors to diffusers', and make linear layers of the attention's 1x1 convolutions.

    ToonCrafter's decoder gets the names of `DualReferenceDecoder`.

    Args:
        tensors: the VAE's, without a prefix.
        source: the checkpoint's name in an error.

    Raises:
        T2VError: where a tensor is missing or has another shape.
    """
    levels = count_numbered(tensors, r"(?:en|de)coder\.(?:down|up)\.(\d{1,2})\.")
    decoder, plain = dual_decoder.split(tensors)
    result = dual_decoder.from_ldm(decoder)
    for name, tensor in plain.items():
        renamed = _to_diffusers(name, levels)
        linear = re.search(r"\.attentions\.0\.to_\w+(?:\.0)?\.weight$", renamed) and len(tensor.shape) == 4
        result[renamed] = tensor.reshape(tensor.shape[:2]) if linear else tensor
    check_shapes(result, lambda: _expected(result), f"{source}: its VAE")
    return result


def from_diffusers(tensors: LazyDict, source: str) -> LazyDict:
    """Rename the tensors of any version of diffusers to today's names.

    Args:
        tensors: the VAE's, without a prefix.
        source: the checkpoint's name in an error.

    Raises:
        T2VError: where a tensor is missing or has another shape.
    """
    result: LazyDict = {}
    for name, tensor in tensors.items():
        for old, new in _OLD_ATTENTION.items():
            name = name.replace(f".attentions.0.{old}.", f".attentions.0.{new}.")
        linear = ".attentions.0.to_" in name and len(tensor.shape) == 4
        result[name] = tensor.reshape(tensor.shape[:2]) if linear else tensor
    check_shapes(result, lambda: expected_shapes(config_of(result)), f"{source}: its VAE")
    return result


def to_ldm(tensors: LazyDict) -> LazyDict:
    """Rename diffusers' tensors to latent diffusion's, and make 1x1 convolutions of the attention's linear layers."""
    levels = count_numbered(tensors, r"encoder\.down_blocks\.(\d{1,2})\.")
    decoder, plain = dual_decoder.split(tensors)
    result = dual_decoder.to_ldm(decoder)
    for name, tensor in plain.items():
        linear = ".attentions.0.to_" in name and len(tensor.shape) == 2
        result[_to_ldm(name, levels)] = tensor.reshape((*tensor.shape, 1, 1)) if linear else tensor
    return result


def _to_diffusers(name: str, levels: int) -> str:
    name = re.sub(r"\.nin_shortcut\.", ".conv_shortcut.", name)
    name = re.sub(r"^(encoder|decoder)\.norm_out\.", r"\1.conv_norm_out.", name)
    name = re.sub(r"^encoder\.down\.(\d+)\.block\.", r"encoder.down_blocks.\1.resnets.", name)
    name = re.sub(r"^encoder\.down\.(\d+)\.downsample\.", r"encoder.down_blocks.\1.downsamplers.0.", name)
    match = re.match(r"decoder\.up\.(\d+)\.(block|upsample)\.(.*)", name)
    if match:
        kind = "resnets" if match[2] == "block" else "upsamplers.0"
        return f"decoder.up_blocks.{levels - 1 - int(match[1])}.{kind}.{match[3]}"
    match = re.match(r"(encoder|decoder)\.mid\.block_([12])\.(.*)", name)
    if match:
        return f"{match[1]}.mid_block.resnets.{int(match[2]) - 1}.{match[3]}"
    match = re.match(r"(encoder|decoder)\.mid\.attn_1\.(\w+)\.(weight|bias)$", name)
    if match and match[2] in _ATTENTION:
        return f"{match[1]}.mid_block.attentions.0.{_ATTENTION[match[2]]}.{match[3]}"
    return name


def _to_ldm(name: str, levels: int) -> str:
    name = re.sub(r"\.conv_shortcut\.", ".nin_shortcut.", name)
    name = re.sub(r"^(encoder|decoder)\.conv_norm_out\.", r"\1.norm_out.", name)
    name = re.sub(r"^encoder\.down_blocks\.(\d+)\.resnets\.", r"encoder.down.\1.block.", name)
    name = re.sub(r"^encoder\.down_blocks\.(\d+)\.downsamplers\.0\.", r"encoder.down.\1.downsample.", name)
    match = re.match(r"decoder\.up_blocks\.(\d+)\.(resnets|upsamplers\.0)\.(.*)", name)
    if match:
        kind = "block" if match[2] == "resnets" else "upsample"
        return f"decoder.up.{levels - 1 - int(match[1])}.{kind}.{match[3]}"
    match = re.match(r"(encoder|decoder)\.mid_block\.resnets\.([01])\.(.*)", name)
    if match:
        return f"{match[1]}.mid.block_{int(match[2]) + 1}.{match[3]}"
    for ours, theirs in _ATTENTION.items():
        name = name.replace(f".mid_block.attentions.0.{theirs}.", f".mid.attn_1.{ours}.")
    return name


def config_of(tensors: LazyDict, scaling_factor: float = 0.18215) -> dict[str, Any]:
    """Return the config.json of diffusers' AutoencoderKL for tensors under its names; KeyError where one is missing."""
    levels = count_numbered(tensors, r"encoder\.down_blocks\.(\d{1,2})\.")
    widths = [tensors[f"encoder.down_blocks.{i}.resnets.0.conv1.weight"].shape[0] for i in range(levels)]
    latent = tensors["decoder.conv_in.weight"].shape[1]
    return {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "in_channels": tensors["encoder.conv_in.weight"].shape[1],
        "latent_channels": latent,
        "mid_block_add_attention": any(".mid_block.attentions." in name for name in tensors),
        "layers_per_block": count_numbered(tensors, r"encoder\.down_blocks\.0\.resnets\.(\d{1,2})\."),
        "norm_num_groups": 32,
        "out_channels": tensors["decoder.conv_out.weight"].shape[0],
        "sample_size": 512,
        "scaling_factor": scaling_factor,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "use_quant_conv": "quant_conv.weight" in tensors,
        "use_post_quant_conv": "post_quant_conv.weight" in tensors,
    }


def _expected(tensors: LazyDict) -> Shapes:
    """The shapes of a VAE, whichever decoder it has."""
    shapes = expected_shapes(config_of(tensors))
    decoder, _ = dual_decoder.split(tensors)
    if not decoder:
        return shapes
    plain = {name: shape for name, shape in shapes.items() if not name.startswith("decoder.")}
    return plain | dual_decoder.expected_shapes(decoder)


def expected_shapes(config: dict[str, Any]) -> dict[str, Shape]:
    """Map the name of every tensor of diffusers' AutoencoderKL to its shape."""
    widths, layers, latent = config["block_out_channels"], config["layers_per_block"], config["latent_channels"]
    shapes: dict[str, Shape] = {}

    def layer(name: str, *shape: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]

    def resnet(name: str, before: int, after: int) -> None:
        layer(f"{name}.norm1", before)
        layer(f"{name}.conv1", after, before, 3, 3)
        layer(f"{name}.norm2", after)
        layer(f"{name}.conv2", after, after, 3, 3)
        if before != after:
            layer(f"{name}.conv_shortcut", after, before, 1, 1)

    def side(name: str, outer: int, inner: int, order: list[int], blocks: str, moves: str, count: int) -> None:
        top = order[-1] if blocks == "down_blocks" else order[0]
        layer(f"{name}.conv_in", order[0], outer, 3, 3)
        for i, width in enumerate(order):
            for j in range(count):
                resnet(f"{name}.{blocks}.{i}.resnets.{j}", order[max(i - 1, 0)] if j == 0 else width, width)
            if i < len(order) - 1:
                layer(f"{name}.{blocks}.{i}.{moves}.0.conv", width, width, 3, 3)
        resnet(f"{name}.mid_block.resnets.0", top, top)
        resnet(f"{name}.mid_block.resnets.1", top, top)
        if config["mid_block_add_attention"]:
            layer(f"{name}.mid_block.attentions.0.group_norm", top)
            for x in ("to_q", "to_k", "to_v", "to_out.0"):
                layer(f"{name}.mid_block.attentions.0.{x}", top, top)
        layer(f"{name}.conv_norm_out", order[-1])
        layer(f"{name}.conv_out", inner, order[-1], 3, 3)

    side("encoder", config["in_channels"], 2 * latent, widths, "down_blocks", "downsamplers", layers)
    side("decoder", latent, config["out_channels"], widths[::-1], "up_blocks", "upsamplers", layers + 1)
    if config["use_quant_conv"]:
        layer("quant_conv", 2 * latent, 2 * latent, 1, 1)
    if config["use_post_quant_conv"]:
        layer("post_quant_conv", latent, latent, 1, 1)
    return shapes
