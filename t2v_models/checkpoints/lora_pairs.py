"""Changes of single weights, low-rank or whole: what every LoRA format is read into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from ..errors import AGAIN, T2VError
from ..foreign import quoted
from ..unet import PRESETS, UNetConfig
from .detect import LAYOUTS
from .tensors import LazyTensor, is_finite


@dataclass(frozen=True)
class LoraPair:
    """The change of one weight: alpha / rank * up @ down."""

    up: torch.Tensor
    """(out, rank) or, of a convolution, (out, rank, 1, …)."""
    down: torch.Tensor
    """(rank, in) or (rank, in, kernel…)."""
    alpha: float | None = None
    """The change is scaled by alpha / rank; by 1 where None."""
    mid: torch.Tensor | None = None
    """(rank, rank, kernel…): the kernel of a decomposed convolution."""

    @property
    def rank(self) -> int:
        """The number of rows of `down`."""
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        """The factor of up @ down."""
        return 1.0 if self.alpha is None else self.alpha / self.rank

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in, kernel…) of the change; dimensions of size one may differ from the weight's."""
        kernel = (self.mid if self.mid is not None else self.down).shape[2:]
        return (self.up.shape[0], self.down.shape[1], *kernel)

    def delta(self, shape: Sequence[int]) -> torch.Tensor:
        """Compute the change of a weight of `shape`, (out, in, …): float32, scaled by alpha / rank.

        Raises:
            ValueError: where it does not fit that shape.
        """
        columns = prod(self.down.shape[1:]) * (1 if self.mid is None else prod(self.mid.shape[2:]))
        if self.up.shape[0] * columns != prod(shape) or self.up.shape[0] != shape[0]:
            raise ValueError(f"it is {quoted(self.shape)} and the weight is {tuple(shape)}")
        up, down = self.up.float().flatten(1), self.down.float()
        if self.mid is not None:
            down = torch.einsum("rs...,si->ri...", self.mid.float(), down.flatten(1))
        return (up @ down.flatten(1) * self.scale).reshape(tuple(shape))


@dataclass(frozen=True)
class LoraDiff:
    """The whole change of one weight or bias, as trainers write it for norms and biases."""

    value: torch.Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the change; dimensions of size one may differ from the weight's."""
        return tuple(self.value.shape)

    def delta(self, shape: Sequence[int]) -> torch.Tensor:
        """Return the change of a weight of `shape`, float32.

        Raises:
            ValueError: where it does not fit that shape.
        """
        if not fits(self, shape):
            raise ValueError(f"it is {quoted(self.shape)} and the weight is {tuple(shape)}")
        return self.value.float().reshape(tuple(shape))


LoraChange = LoraPair | LoraDiff
"""What a LoRA does to one weight."""


def fits(change: LoraChange, shape: Sequence[int]) -> bool:
    """Whether a change is one of a weight of `shape`, (out, …); dimensions of size one do not count."""
    return prod(change.shape) == prod(shape) and tuple(change.shape[:1]) == tuple(shape[:1])


@dataclass(frozen=True)
class Lora:
    """A LoRA file: its changes by the names of the weights in `UNet3D`."""

    path: str
    format: str
    """diffusers, kohya, cloneofsimo, stable_lora or list."""
    unet: Mapping[str, LoraChange]
    text_encoder: Mapping[str, LoraChange]
    """By the names of transformers' CLIPTextModel."""
    unknown: tuple[str, ...] = ()
    """Names in the file that belong to no known module, or that change what another name changes already."""


def check_halves(path: Path, name: str, pair: LoraPair) -> None:
    """Raise T2VError where the halves have fewer than two dimensions, or ranks that differ."""
    inner = pair.up.shape[1] if pair.up.ndim > 1 else -1
    if pair.mid is not None and pair.mid.ndim:
        rank = pair.mid.shape[0]
    else:
        rank = pair.down.shape[0] if pair.down.ndim > 1 else -2
    if inner != rank:
        raise T2VError(
            f"{path} is damaged: the halves of {quoted(name)} do not fit each other, {quoted(list(pair.up.shape))} and "
            f"{quoted(list(pair.down.shape))}. {AGAIN}"
        )


def finite(path: Path, name: str, tensor: LazyTensor) -> torch.Tensor:
    """Read a tensor of a LoRA; T2VError where it holds NaN or infinity."""
    value = tensor.load()
    if not is_finite(value):
        raise T2VError(
            f"{path} holds values that are no numbers (NaN or infinity, the first in {quoted(name)}): its training "
            "failed. Choose another LoRA, or an earlier save of this one."
        )
    return value


def known_modules(config: UNetConfig | None) -> dict[str, str]:
    """Map every layout's names of the UNet's modules, dotted or with underscores, to the weights of `UNet3D`."""
    config = config or PRESETS["t2v-turbo-v2"]
    table: dict[str, str] = {}
    for layout in LAYOUTS.values():
        for canonical, theirs in layout.names(config).items():
            if canonical.endswith(".weight"):
                module = theirs.removesuffix(".weight")
                table[module] = table[module.replace(".", "_")] = canonical
    return table
