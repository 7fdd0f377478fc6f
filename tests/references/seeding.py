"""Weights and inputs that follow from a name and a shape, so that nobody has to store them.

A recorder fills a reference network with them, a test fills ours with the same ones; only outputs are kept. NumPy's
RandomState is frozen: it gives the same numbers in every version.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn


def normal(name: str, shape: tuple[int, ...]) -> Tensor:
    """A standard normal tensor, float32, that depends on its name and shape alone."""
    state = np.random.RandomState(zlib.crc32(name.encode()))
    return torch.from_numpy(np.asarray(state.standard_normal(shape), dtype=np.float32))


def weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """A weight of a trained network's size: matrices keep their input's variance, and nothing is zero or one."""
    values = normal(name, shape)
    if len(shape) > 1:
        return values * int(np.prod(shape[1:])) ** -0.5
    return 1 + 0.3 * values if name.endswith("weight") else 0.1 * values  # a normalisation's weight; a bias or scale


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """A whole state dict."""
    return {name: weight(name, tuple(shape)) for name, shape in shapes.items()}


def fill(module: nn.Module) -> nn.Module:
    """Give every weight of a network its seeded value, layers that start at zero included."""
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    module.load_state_dict(weights(shapes))
    return module.eval().requires_grad_(False)


def manifest(module: nn.Module) -> dict[str, list[int]]:
    """Name -> shape of every weight."""
    return {name: list(value.shape) for name, value in module.state_dict().items()}
