"""What ToonCrafter's decoder sees of the two pictures, and how its authors decode a clip with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor

SHORTEST = 6
"""Frames from which on a clip is decoded a second time for its middle."""


def features(
    conv_in: Callable[[Tensor], Tensor], levels: Iterable[tuple[Iterable[Any], Any]], pixels: Tensor
) -> list[Tensor]:
    """The feature maps that an image encoder has of pictures at each of its levels, and behind its first convolution.

    Args:
        conv_in: the encoder's first convolution.
        levels: of each level, from the largest size to the smallest, the residual blocks, which are called with None for
            the timestep, and what makes the next size, None at the last.
        pixels: (n, 3, h, w), -1..1.

    Returns:
        Of each level (n, c, h, w), before it is made smaller; then that of the first convolution.
    """
    x = first = conv_in(pixels)
    maps = []
    for blocks, downsample in levels:
        for block in blocks:
            x = block(x, None)
        maps.append(x)
        x = x if downsample is None else downsample(x)
    return [*maps, first]


def diffusers_features(encoder: Any, pixels: Tensor) -> list[Tensor]:
    """`features` of the encoder of diffusers' AutoencoderKL."""
    levels = [(block.resnets, block.downsamplers[0] if block.downsamplers else None) for block in encoder.down_blocks]
    return features(encoder.conv_in, levels, pixels)


def ldm_features(encoder: Any, pixels: Tensor) -> list[Tensor]:
    """`features` of latent diffusion's encoder, as ComfyUI has it, too."""
    levels = [(level.block, getattr(level, "downsample", None)) for level in encoder.down]
    return features(encoder.conv_in, levels, pixels)


def decode_clip(
    decoder: Callable[[Tensor, Sequence[Tensor] | None], Tensor], z: Tensor, references: Sequence[Tensor] | None
) -> Tensor:
    """Decode one clip as ToonCrafter's script does: the two frames in the middle come from a second pass.

    Without its second and its last but one frame the middle lies closer to the pictures at the ends.

    Args:
        decoder: a `DualReferenceDecoder`.
        z: (t, c, h, w) latents.
        references: see `features`, of the first and the last picture; None decodes once, without pictures.

    Returns:
        (t, 3, 8h, 8w), about -1..1.
    """
    frames = decoder(z, references)
    count, middle = len(z), len(z) // 2
    if references is None or count < SHORTEST:
        return frames
    kept = [i for i in range(count) if i not in (1, count - 2)]
    frames[middle - 1 : middle + 1] = decoder(z[kept], references)[middle - 2 : middle]
    return frames
