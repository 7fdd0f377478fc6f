"""Initialise an autoencoder to shrink and enlarge the image, so that it learns edges in minutes.

Group normalisation takes the absolute level out of an image, and flat colours are learned slowly through it. So every
group of channels begins as [+C, -C, +s, -s, free …]. The two constants keep the group's mean at 0 and its deviation
almost constant, s is one colour, and silu(s) - silu(-s) = s carries it through the activation unchanged. Residual
branches begin small. This is only a starting point: every weight is trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from diffusers.models import AutoencoderKL

CONSTANT = 2.0


def start_as_identity(model: AutoencoderKL, groups: int) -> None:
    """Initialise a diffusers autoencoder in place.

    Args:
        groups: of its norms; every layer must have at least four channels for each.
    """
    for name, module in model.named_modules():
        _start_block(module, groups, in_middle="mid_block" in name)
    colours, latents = model.config["in_channels"], model.config["latent_channels"]
    _write_signals(model.encoder.conv_in, groups)
    _read_signals(model.encoder.conv_out, groups, colours)
    _write_signals(model.decoder.conv_in, groups)
    _read_signals(model.decoder.conv_out, groups, colours)
    with torch.no_grad():
        _bias(model.encoder.conv_out)[latents:] = -5  # a small variance
        model.encoder.conv_out.weight[latents:] *= 0.1
        for conv in (model.quant_conv, model.post_quant_conv):
            if conv is not None:
                conv.weight.copy_(torch.eye(conv.out_channels, conv.in_channels)[:, :, None, None])
                _bias(conv).zero_()


@torch.no_grad()
def _start_block(module: nn.Module, groups: int, *, in_middle: bool) -> None:
    """Make residual branches small, and let all other layers of a block pass the signals on."""
    from diffusers.models.attention_processor import Attention
    from diffusers.models.resnet import Downsample2D, ResnetBlock2D, Upsample2D

    same = torch.zeros(3, 3)
    same[1, 1] = 1
    mean = torch.zeros(3, 3)
    mean[:2, :2] = 0.25  # stride 2 with one row of padding at the far side
    if isinstance(module, ResnetBlock2D):
        _shrink(module.conv2)
        if module.conv_shortcut is not None:
            _pass_signals(module.conv_shortcut, groups, torch.ones(1, 1))
    elif isinstance(module, Downsample2D):
        _pass_signals(module.conv, groups, mean)
    elif isinstance(module, Upsample2D) and isinstance(module.conv, nn.Conv2d):
        _pass_signals(module.conv, groups, same)
    elif isinstance(module, Attention) and in_middle:
        for layer in module.to_out:
            if isinstance(layer, nn.Linear):
                _shrink(layer)


def _shrink(layer: nn.Conv2d | nn.Linear) -> None:
    layer.weight.mul_(0.2)
    _bias(layer).zero_()


def _bias(layer: nn.Conv2d | nn.Linear) -> torch.Tensor:
    if layer.bias is None:
        raise TypeError("start_as_identity needs layers with a bias.")
    return layer.bias


def _signals(channels: int, groups: int) -> list[tuple[int, int, int, int]]:
    """Channel numbers (+C, -C, +s, -s) of each group."""
    width = channels // groups
    return [(g * width, g * width + 1, g * width + 2, g * width + 3) for g in range(groups)]


@torch.no_grad()
def _pass_signals(conv: nn.Conv2d, groups: int, kernel: torch.Tensor) -> None:
    """Make a convolution pass on the first four channels of each group, filtered by `kernel`."""
    sources, targets = _signals(conv.in_channels, groups), _signals(conv.out_channels, groups)
    conv.weight.mul_(0.3)
    _bias(conv).zero_()
    for source, target in zip(sources, targets, strict=True):
        for a, b in zip(source, target, strict=True):
            conv.weight[b] = 0
            conv.weight[b, a] = kernel


@torch.no_grad()
def _write_signals(conv: nn.Conv2d, groups: int) -> None:
    """Make a first convolution write each input channel to a group of its own, as +s and -s beside the constants."""
    centre, bias = conv.kernel_size[0] // 2, _bias(conv).zero_()
    for index, (plus, minus, positive, negative) in enumerate(_signals(conv.out_channels, groups)):
        conv.weight[[plus, minus, positive, negative]] = 0
        bias[plus], bias[minus] = CONSTANT, -CONSTANT
        if index < conv.in_channels:
            conv.weight[positive, index, centre, centre] = 1
            conv.weight[negative, index, centre, centre] = -1


@torch.no_grad()
def _read_signals(conv: nn.Conv2d, groups: int, count: int) -> None:
    """Make a last convolution read the signals of the first `count` groups, and undo the scale of the norm."""
    centre, width = conv.kernel_size[0] // 2, conv.in_channels // groups
    scale = CONSTANT * (2 / width) ** 0.5
    conv.weight.mul_(0.1)
    _bias(conv).zero_()
    for index, (_, _, positive, negative) in enumerate(_signals(conv.in_channels, groups)[:count]):
        conv.weight[index] = 0
        conv.weight[index, positive, centre, centre] = scale
        conv.weight[index, negative, centre, centre] = -scale
