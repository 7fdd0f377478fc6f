"""ToonCrafter's decoder in a VAE: its own names to those of `DualReferenceDecoder`, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..vae.dual_reference import DecoderConfig, DualReferenceDecoder
from .layouts import MOST_BLOCKS, Shape, count_numbered
from .tensors import LazyDict

_PREFIX, _MARK = "decoder.", "decoder.attn_refinement."
_OVER_TIME = re.compile(r"(?:\.time_stack\.\w+_layers\.[23]|\btime_mix_conv)\.weight$")
"""The convolutions over frames, Conv3d in the file."""


def is_dual(tensors: Mapping[str, Any]) -> bool:
    """Whether a VAE, by any names, has ToonCrafter's decoder."""
    return any(name.startswith(_MARK) for name in tensors)


def is_beyond_plain(name: str) -> bool:
    """Whether Stable Diffusion's decoder has no tensor of this name in the file: those over time, and of the pictures."""
    return any(part in name for part in (".time_stack.", ".mix_factor", ".time_mix_conv.", ".attn_refinement."))


def split(tensors: LazyDict) -> tuple[LazyDict, LazyDict]:
    """The tensors of ToonCrafter's decoder, with their prefix "decoder.", and all others; no such ones in another VAE."""
    if not is_dual(tensors):
        return {}, tensors
    decoder = {name: tensor for name, tensor in tensors.items() if name.startswith(_PREFIX)}
    return decoder, {name: tensor for name, tensor in tensors.items() if name not in decoder}


def from_ldm(tensors: LazyDict) -> LazyDict:
    """Rename and reshape the decoder's tensors in the file to ours; those that have no place keep theirs."""
    result: LazyDict = {}
    for name, tensor in tensors.items():
        name = name.replace("conv_out.time_mix_conv.", "time_mix_conv.")
        if name.endswith(".mix_factor") and tensor.numel == 1:
            name, tensor = f"{name}.weight", tensor.reshape((1, 1))
        elif _OVER_TIME.search(name) and tensor.shape[4:] == (1,):
            tensor = tensor.reshape(tensor.shape[:4])
        result[name] = tensor
    return result


def to_ldm(tensors: LazyDict) -> LazyDict:
    """Undo `from_ldm`."""
    result: LazyDict = {}
    for name, tensor in tensors.items():
        if name.endswith(".mix_factor.weight"):
            name, tensor = name.removesuffix(".weight"), tensor.reshape((1,))
        elif _OVER_TIME.search(name):
            tensor = tensor.reshape((*tensor.shape, 1))
        result[name.replace("decoder.time_mix_conv.", "decoder.conv_out.time_mix_conv.")] = tensor
    return result


def config_of(tensors: Mapping[str, Any]) -> DecoderConfig:
    """Read the decoder's shape from a VAE's tensors, by our names.

    Raises:
        KeyError: where a tensor is missing.
    """
    own = {name: tensor for name, tensor in tensors.items() if name.startswith(_PREFIX)}
    shapes = {name.removeprefix(_PREFIX): tuple(tensor.shape) for name, tensor in own.items()}
    levels = count_numbered(shapes, r"up\.(\d{1,2})\.")
    blocks = count_numbered(shapes, r"up\.0\.block\.(\d{1,2})\.")
    if not 0 < levels <= MOST_BLOCKS or not 0 < blocks <= MOST_BLOCKS:
        raise KeyError(f"decoder of {levels} levels of {blocks} blocks")
    return DecoderConfig(
        channels=tuple(shapes[f"up.{level}.block.0.conv2.weight"][0] for level in range(levels)),
        attending=tuple(f"attn_refinement.{level}.to_q.weight" in shapes for level in range(levels)),
        num_res_blocks=blocks,
        latent_channels=shapes["conv_in.weight"][1],
        out_channels=shapes["conv_out.weight"][0],
    )


def expected_shapes(tensors: Mapping[str, Any]) -> dict[str, Shape]:
    """Map the name of every tensor of such a decoder, with its prefix, to its shape; errors as `config_of` has them."""
    decoder = DualReferenceDecoder(config_of(tensors), device="meta")
    return {_PREFIX + name: tuple(tensor.shape) for name, tensor in decoder.state_dict().items()}
