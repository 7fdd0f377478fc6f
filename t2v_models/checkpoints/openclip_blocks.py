"""The transformer blocks of CLIP, of its text and its image encoder: OpenCLIP's names to those of transformers, and back.

OpenCLIP fuses the query, key and value projections.
"""

from __future__ import annotations

import re

import torch

from .layouts import Shape, count_numbered
from .tensors import LazyDict, LazyTensor

_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_BACK = {theirs: ours for ours, theirs in _BLOCK.items()}


def count_blocks(tensors: LazyDict, root: str) -> int:
    """Count the blocks "ROOT.0.…", "ROOT.1.…" and so on."""
    return count_numbered(tensors, rf"{re.escape(root)}\.(\d{{1,3}})\.")


def from_openclip(tensors: LazyDict, root: str, new_root: str, kept: int) -> LazyDict:
    """Rename the first `kept` blocks "ROOT.0.…" to transformers' "NEW_ROOT.0.…", and leave out all other tensors."""
    result: LazyDict = {}
    for name, tensor in tensors.items():
        match = re.match(rf"{re.escape(root)}\.(\d{{1,3}})\.(.+)[._](weight|bias)$", name)
        if not match or int(match[1]) >= kept:
            continue
        layer, block, kind = f"{new_root}.{match[1]}", match[2], match[3]
        if block == "attn.in_proj" and tensor.shape and tensor.shape[0] % 3 == 0:
            for i, x in enumerate("qkv"):
                result[f"{layer}.self_attn.{x}_proj.{kind}"] = _third(tensor, i)
        elif block in _BLOCK:
            result[f"{layer}.{_BLOCK[block]}.{kind}"] = tensor
    return result


def to_openclip(tensors: LazyDict, root: str, new_root: str) -> LazyDict:
    """Rename transformers' blocks "ROOT.0.…" to OpenCLIP's "NEW_ROOT.0.…", and leave out all other tensors."""
    result: LazyDict = {}
    for name, tensor in tensors.items():
        match = re.match(rf"{re.escape(root)}\.(\d+)\.(.+)\.(weight|bias)$", name)
        if not match:
            continue
        block = f"{new_root}.{match[1]}"
        if match[2] in _BACK:
            result[f"{block}.{_BACK[match[2]]}.{match[3]}"] = tensor
        elif match[2] == "self_attn.q_proj":
            parts = [tensors[name.replace("q_proj", f"{x}_proj")] for x in "qkv"]
            result[f"{block}.attn.in_proj_{match[3]}"] = _concatenated(parts)
    return result


def expected_shapes(root: str, layers: int, width: int, inner: int) -> dict[str, Shape]:
    """Map the name of every tensor of so many blocks of transformers to its shape."""
    shapes: dict[str, Shape] = {}
    for i in range(layers):
        layer = f"{root}.{i}"
        for name in ("layer_norm1", "layer_norm2"):
            shapes[f"{layer}.{name}.weight"] = shapes[f"{layer}.{name}.bias"] = (width,)
        for name, rows, columns in (
            *((f"self_attn.{x}_proj", width, width) for x in ("q", "k", "v", "out")),
            ("mlp.fc1", inner, width),
            ("mlp.fc2", width, inner),
        ):
            shapes[f"{layer}.{name}.weight"], shapes[f"{layer}.{name}.bias"] = (rows, columns), (rows,)
    return shapes


def _third(tensor: LazyTensor, i: int) -> LazyTensor:
    """Return the first, second or last third of the rows."""
    rows = tensor.shape[0] // 3
    return tensor.then(lambda whole: whole[i * rows : (i + 1) * rows], (rows, *tensor.shape[1:]))


def _concatenated(parts: list[LazyTensor]) -> LazyTensor:
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    return LazyTensor(parts[0].dtype, shape, lambda: torch.cat([part.load() for part in parts]))
