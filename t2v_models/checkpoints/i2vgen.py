"""I2VGen-XL's own file (VGen's i2vgen_xl_00854500.pth), which differs from its network by more than names.

Its attention over image latents has one projection for query, key and value. And VGen's network adds what it makes of the
image latents twice, which this pack's and diffusers' do once: the factor is put into the first convolution. Source: VGen,
tools/modules/unet/unet_i2vgen.py. The weights in diffusers' folder are taken as diffusers computes with them.
"""

from __future__ import annotations

from functools import partial

import torch

from .tensors import LazyDict, LazyTensor

_ATTENTION = "local_temporal_encoder.layers.0.0.fn."
_FUSED, _FIRST = f"{_ATTENTION}to_qkv.weight", "input_blocks.0.0.weight"


def from_vgen(tensors: LazyDict) -> LazyDict:
    """Separate the projections, and double the first convolution's weights of the image latents; others stay as they are."""
    fused, first = tensors.get(_FUSED), tensors.get(_FIRST)
    if fused is None or first is None or len(fused.shape) != 2 or fused.shape[0] % 3 or len(first.shape) != 4:
        return tensors
    rows = fused.shape[0] // 3
    result = {name: tensor for name, tensor in tensors.items() if name != _FUSED}
    for i, x in enumerate("qkv"):
        result[f"{_ATTENTION}to_{x}.weight"] = fused.then(partial(_rows, i * rows, rows), (rows, fused.shape[1]))
    return result | {_FIRST: first.then(partial(_scaled, 2.0), first.shape)}


def to_vgen(tensors: LazyDict) -> LazyDict:
    """Undo `from_vgen`."""
    parts = [tensors[f"{_ATTENTION}to_{x}.weight"] for x in "qkv"]
    shape = (sum(part.shape[0] for part in parts), parts[0].shape[1])
    fused = LazyTensor(parts[0].dtype, shape, lambda: torch.cat([part.load() for part in parts]))
    first = tensors[_FIRST]
    separate = {f"{_ATTENTION}to_{x}.weight" for x in "qkv"}
    kept = {name: tensor for name, tensor in tensors.items() if name not in separate}
    return kept | {_FUSED: fused, _FIRST: first.then(partial(_scaled, 0.5), first.shape)}


def _rows(start: int, count: int, tensor: torch.Tensor) -> torch.Tensor:
    return tensor[start : start + count]


def _scaled(factor: float, weight: torch.Tensor) -> torch.Tensor:
    """The weights (o, 2c, h, w) of a convolution, those of the last c channels times a factor; exact, as it is a power of 2."""
    channels = weight.shape[1] // 2
    return torch.cat([weight[:, :channels], weight[:, channels:] * factor], dim=1)
