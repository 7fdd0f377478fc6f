"""Names and shapes of the reference implementations' weights, as record_manifests.py recorded them."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path

import torch

from t2v_models.checkpoints.tensors import LazyDict, LazyTensor


@cache
def manifests() -> dict[str, dict[str, tuple[int, ...]]]:
    """Shapes by model and name, in the order of the reference's modules."""
    raw = gzip.decompress((Path(__file__).parents[1] / "fixtures" / "manifests.json.gz").read_bytes())
    return {model: {name: tuple(shape) for name, shape in entries} for model, entries in json.loads(raw).items()}


def on_meta(shapes: dict[str, tuple[int, ...]], dtype: torch.dtype = torch.float16, prefix: str = "") -> LazyDict:
    """Tensors of these shapes that have no storage."""
    return {
        prefix + name: LazyTensor(dtype, shape, lambda s=shape: torch.empty(s, dtype=dtype, device="meta"))
        for name, shape in shapes.items()
    }
