"""Start an autoencoder as a plain shrinking and enlarging of the picture, from which it learns edges in minutes.

Group normalisation takes the absolute level out of a picture, and learning flat colours through it is slow. So every
group of channels begins as [+C, -C, +s, -s, free …]: the two constants keep the group's mean at 0 and its deviation
almost fixed, s is one colour, and silu(s) - silu(-s) = s carries it through the activation unchanged. Residual branches
begin small. All of it is only a starting point: every weight is trained.
"""

from __future__ import annotations

import torch
from torch import nn

CONSTANT = 2.0


def _signals(channels: int, groups: int) -> list[tuple[int, int, int, int]]:
    """Channel numbers (+C, -C, +s, -s) of each group."""
    width = channels // groups
    return [(g * width, g * width + 1, g * width + 2, g * width + 3) for g in range(groups)]


@torch.no_grad()
def _stream(conv: nn.Conv2d, groups: int, kernel: torch.Tensor) -> None:
    """Make a convolution pass the groups' first four channels on, each blurred by `kernel`."""
    sources, targets = _signals(conv.in_channels, groups), _signals(conv.out_channels, groups)
    conv.weight.mul_(0.3)
    conv.bias.zero_()
    for source, target in zip(sources, targets, strict=True):
        for a, b in zip(source, target, strict=True):
            conv.weight[b] = 0
            conv.weight[b, a] = kernel


@torch.no_grad()
def _enter(conv: nn.Conv2d, groups: int) -> None:
    """Make a first convolution put each input channel in a group of its own as +s, -s beside the constants."""
    centre = conv.kernel_size[0] // 2
    conv.bias.zero_()
    for index, (plus, minus, positive, negative) in enumerate(_signals(conv.out_channels, groups)):
        conv.weight[[plus, minus, positive, negative]] = 0
        conv.bias[plus], conv.bias[minus] = CONSTANT, -CONSTANT
        if index < conv.in_channels:
            conv.weight[positive, index, centre, centre] = 1
            conv.weight[negative, index, centre, centre] = -1


@torch.no_grad()
def _leave(conv: nn.Conv2d, groups: int, count: int) -> None:
    """Make a last convolution read the first `count` groups' signals back, undoing the normalisation's scale."""
    centre, width = conv.kernel_size[0] // 2, conv.in_channels // groups
    scale = CONSTANT * (2 / width) ** 0.5
    conv.weight.mul_(0.1)
    conv.bias.zero_()
    for index, (_, _, positive, negative) in enumerate(_signals(conv.in_channels, groups)[:count]):
        conv.weight[index] = 0
        conv.weight[index, positive, centre, centre] = scale
        conv.weight[index, negative, centre, centre] = -scale


@torch.no_grad()
def start_as_identity(model: nn.Module, groups: int) -> None:
    """Initialise a diffusers AutoencoderKL in place; every width must hold four channels a group."""
    one = torch.zeros(3, 3)
    one[1, 1] = 1
    mean = torch.zeros(3, 3)
    mean[:2, :2] = 0.25  # stride 2 with one row of padding at the far side
    for name, module in model.named_modules():
        kind = type(module).__name__
        if kind == "ResnetBlock2D":
            module.conv2.weight.mul_(0.2)
            module.conv2.bias.zero_()
            if module.conv_shortcut is not None:
                _stream(module.conv_shortcut, groups, torch.ones(1, 1))
        elif kind == "Downsample2D":
            _stream(module.conv, groups, mean)
        elif kind == "Upsample2D":
            _stream(module.conv, groups, one)
        elif kind == "Attention" and "mid_block" in name:
            module.to_out[0].weight.mul_(0.2)
            module.to_out[0].bias.zero_()
    colours, latents = model.config.in_channels, model.config.latent_channels
    _enter(model.encoder.conv_in, groups)
    _leave(model.encoder.conv_out, groups, colours)
    model.encoder.conv_out.bias[latents:] = -5  # a small variance
    model.encoder.conv_out.weight[latents:] *= 0.1
    _enter(model.decoder.conv_in, groups)
    _leave(model.decoder.conv_out, groups, colours)
    for conv in (model.quant_conv, model.post_quant_conv):
        conv.weight.copy_(torch.eye(conv.out_channels, conv.in_channels)[:, :, None, None])
        conv.bias.zero_()
