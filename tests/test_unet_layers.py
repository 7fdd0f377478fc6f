"""Layers by themselves, against torch's."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from t2v_models.unet.group_norm import on_gpu
from t2v_models.unet.layers import channels_last, frames_first
from tests.references.seeding import normal

LAYOUTS = {"frames": lambda x: x, "clips": lambda x: frames_first(x, 3)}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize(("mean", "std"), [(0, 1), (2, 1), (50, 1), (200, 1), (0, 1e-3), (100, 400), (2000, 0)])
def test_normalising_with_channels_last_is_torchs_to_half_precision(layout, mean, std):
    """Also variances beyond half precision's 65504, and nothing but one value."""
    x = layout(channels_last(mean + std * normal("x", (6, 32, 5, 4))).half())
    weight, bias = 1 + 0.3 * normal("w", (32,)), 0.5 * normal("b", (32,))
    exact = F.group_norm(x.double(), 8, weight.double(), bias.double(), 1e-5)
    torchs = F.group_norm(x, 8, weight.half(), bias.half(), 1e-5)
    ours = on_gpu(x, 8, weight, bias, 1e-5)
    assert (ours - exact).abs().max() < 2 * max((torchs - exact).abs().max(), 1e-3)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_normalising_with_channels_last_leaves_them_there(layout):
    x = layout(channels_last(normal("x", (6, 32, 5, 4))).half())
    assert on_gpu(x, 8, torch.ones(32), torch.zeros(32), 1e-5).stride() == x.stride()
