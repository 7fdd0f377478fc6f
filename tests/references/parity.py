"""How far two networks are apart, and where a reference is."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from torch import Tensor, nn

TOLERANCE = 1e-5
"""Largest difference between two float32 networks whose outputs' largest value is 1."""

ROUNDING = 1e-10
"""The same for float64 networks: what is left where two networks compute the same in another order."""


def difference(ours: Tensor, reference: Tensor) -> float:
    """The largest difference, scaled to a reference whose largest value is 1."""
    assert ours.shape == reference.shape, f"{tuple(ours.shape)} is not {tuple(reference.shape)}"
    return float((ours - reference).abs().max() / reference.abs().max())


def modelscope_unet() -> type[nn.Module] | None:
    """The class UNetSD of the installed package modelscope, without importing the package; None without it."""
    spec = importlib.util.find_spec("modelscope")
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0], "models", "multi_modal", "video_synthesis", "unet_sd.py")
    spec = importlib.util.spec_from_file_location("reference_unet_sd", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.UNetSD
