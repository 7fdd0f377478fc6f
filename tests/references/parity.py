"""How far two networks are apart, and the calls that a reference understands."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn

TOLERANCE = 1e-5
"""Largest difference between two float32 networks, where their output's standard deviation is 1."""


def difference(ours: Tensor, reference: Tensor) -> float:
    """The largest difference, scaled to a reference of standard deviation 1."""
    assert ours.shape == reference.shape, f"{tuple(ours.shape)} is not {tuple(reference.shape)}"
    return float((ours - reference).abs().max() / reference.std())


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


def timesteps(*values: float) -> Tensor:
    return torch.tensor(values)
