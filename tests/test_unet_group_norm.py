"""Group normalisation in channels-last memory against torch's kernel for channels-first memory, and against float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2v_models.unet import UNet3D, UNetConfig
from t2v_models.unet.factory import Operations
from t2v_models.unet.group_norm import BLOCK, FEW_CHANNELS, SMALL, GroupNorm, better_than_torchs, on_cpu, on_gpu
from t2v_models.unet.layers import channels_last, frames_first
from tests.references.seeding import normal

LAYOUTS = {"frames": lambda x: x, "clips": lambda x: frames_first(x, 3)}
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
SIZES = {"copied": (6, 5, 4), "one block": (9, 32, 32), "many blocks": (24, 64, 64)}


class ChannelsFirst(nn.GroupNorm):
    """torch's kernel for channels-first memory, whatever the memory of x."""

    def forward(self, x: Tensor) -> Tensor:
        out = F.group_norm(x.flatten(2), self.num_groups, self.weight, self.bias, self.eps)
        return channels_last(out.view(x.shape))


class ChannelsFirstOperations(Operations):
    GroupNorm = ChannelsFirst


def error(result: Tensor, exact: Tensor) -> float:
    return float((result.double() - exact).abs().max() / exact.abs().max())


def affine(channels: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return (1 + 0.3 * normal("w", (channels,))).to(dtype), (0.5 * normal("b", (channels,))).to(dtype)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize(("mean", "std"), [(0, 1), (2, 1), (50, 1), (200, 1), (0, 1e-3), (100, 400), (2000, 0)])
def test_the_gpu_form_equals_torchs_to_half_precision(layout, mean, std):
    """Also variances beyond half precision's 65504, and nothing but one value."""
    x = layout(channels_last(mean + std * normal("x", (6, 32, 5, 4))).half())
    weight, bias = 1 + 0.3 * normal("w", (32,)), 0.5 * normal("b", (32,))
    exact = F.group_norm(x.double(), 8, weight.double(), bias.double(), 1e-5)
    torchs = F.group_norm(x, 8, weight.half(), bias.half(), 1e-5)
    ours = on_gpu(x, 8, weight, bias, 1e-5)
    assert (ours - exact).abs().max() < 2 * max((torchs - exact).abs().max(), 1e-3)


@pytest.mark.parametrize("normalise", [on_cpu, on_gpu])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("size", [(5, 4), (32, 32)])
def test_channels_stay_last_in_memory(normalise, layout, size):
    x = layout(channels_last(normal("x", (6, 32, *size))).half())
    with torch.no_grad():
        assert normalise(x, 8, torch.ones(32), torch.zeros(32), 1e-5).stride() == x.stride()


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("size", ["copied", "one block", pytest.param("many blocks", marks=pytest.mark.slow)])
@pytest.mark.parametrize("per_group", [1, 2, 4, 10])
def test_the_cpu_form_has_at_most_twice_the_error_of_torchs_channels_first_kernel(per_group, size, layout, dtype):
    n, height, width = SIZES[size]
    channels = 4 * per_group
    weight, bias = affine(channels, dtype)
    for mean, std in [(0, 1), (1, 1), (5, 1), (50, 1), (1000, 1), (0, 1e-3), (0, 300), (-20, 4)]:
        x = layout(channels_last(mean + std * normal(f"x{mean}", (n, channels, height, width))).to(dtype))
        exact = F.group_norm(x.double(), 4, weight.double(), bias.double(), 1e-5)
        torchs = F.group_norm(x.flatten(2), 4, weight, bias, 1e-5).view(x.shape)
        with torch.no_grad():
            ours = on_cpu(x, 4, weight, bias, 1e-5)
        assert ours.dtype == dtype
        assert error(ours, exact) <= 2 * error(torchs, exact), (mean, std)


def test_the_sizes_of_these_tests_take_every_way_of_the_cpu_form():
    elements = {name: n * 4 * height * width for name, (n, height, width) in SIZES.items()}
    assert elements["copied"] <= SMALL < elements["one block"] <= BLOCK < elements["many blocks"]


@pytest.mark.parametrize("per_group", [1, FEW_CHANNELS, FEW_CHANNELS + 1, 10])
def test_groups_of_few_channels_alone_take_the_cpu_form(per_group):
    layer = GroupNorm(8, 8 * per_group)
    x = channels_last(3 + normal("x", (4, 8 * per_group, 32, 32)))
    with torch.no_grad():
        form = on_cpu if per_group <= FEW_CHANNELS else F.group_norm
        assert torch.equal(layer(x), form(x, 8, layer.weight, layer.bias, layer.eps))
    assert better_than_torchs(x.contiguous(), 8) is None
    assert better_than_torchs(x.double(), 8) is None


def test_gradients_of_groups_of_few_channels_are_exact():
    x = channels_last(5 + normal("x", (4, 8, 32, 32)))
    results = []
    for each in (x, x.double()):
        layer = GroupNorm(4, 8).to(each.dtype)
        each = each.requires_grad_()
        (layer(each) ** 3).sum().backward()
        results.append([each.grad, layer.weight.grad, layer.bias.grad])
    for ours, exact in zip(*results, strict=True):
        assert error(ours, exact) < 1e-5


def _with_random_weights(unet: UNet3D) -> UNet3D:
    """All weights N(0, 0.06), all normalisations N(0.5, 0.3)."""
    generator = torch.Generator().manual_seed(0)
    for module in unet.modules():
        norm = isinstance(module, (nn.GroupNorm, nn.LayerNorm))
        for weight in module.parameters(recurse=False):
            nn.init.normal_(weight, *((0.5, 0.3) if norm else (0, 0.06)), generator=generator)
    return unet.requires_grad_(False).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("per_group", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 4, 6))])
def test_a_unet_has_at_most_twice_the_error_of_one_with_torchs_channels_first_kernel(per_group, dtype):
    config = UNetConfig(
        channels=(4 * per_group, 8 * per_group),
        num_res_blocks=1,
        attention_levels=(True, False),
        head_dim=4,
        context_dim=16,
        norm_groups=4,
        init_heads=2,
    )
    ours, torchs = (_with_random_weights(UNet3D(config, each)) for each in (Operations, ChannelsFirstOperations))
    inputs = [normal("x", (1, 4, 8, 16, 16)), torch.tensor([900.0]), normal("context", (1, 5, 16))]
    with torch.no_grad():
        exact = ours.double()(*(value.double() for value in inputs))
        results = [unet.to(dtype)(inputs[0].to(dtype), inputs[1], inputs[2].to(dtype)) for unet in (ours, torchs)]
    assert error(results[0], exact) <= 2 * error(results[1], exact)
