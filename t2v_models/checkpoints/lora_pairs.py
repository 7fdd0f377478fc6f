"""What every LoRA format is read into: pairs of low-rank matrices by the weight that they change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..unet import PRESETS, UNetConfig
from .detect import LAYOUTS


@dataclass(frozen=True)
class LoraPair:
    """The change of one weight."""

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
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        return 1.0 if self.alpha is None else self.alpha / self.rank

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in, kernel…) of the weight that is changed, as far as the pair tells."""
        kernel = (self.mid if self.mid is not None else self.down).shape[2:]
        return (self.up.shape[0], self.down.shape[1], *kernel)

    def delta(self, shape: Sequence[int]) -> torch.Tensor:
        """(out, in, …) the change for a weight of `shape`, in float32, scaled by alpha / rank.

        Raises:
            ValueError: where it does not fit that shape.
        """
        up, down = self.up.float().flatten(1), self.down.float()
        if self.mid is not None:
            down = torch.einsum("rs...,si->ri...", self.mid.float(), down.flatten(1))
        change = up @ down.flatten(1)
        if change.numel() != torch.Size(shape).numel() or change.shape[0] != shape[0]:
            raise ValueError(f"it is {tuple(self.shape)} and the weight is {tuple(shape)}")
        return (change * self.scale).reshape(tuple(shape))


@dataclass(frozen=True)
class Lora:
    """A LoRA file: its changes by the canonical names of the weights."""

    path: str
    format: str
    """diffusers, kohya, cloneofsimo, stable_lora or list."""
    unet: dict[str, LoraPair]
    text_encoder: dict[str, LoraPair]
    """By the names of transformers' CLIPTextModel."""
    unknown: tuple[str, ...] = ()
    """Names in the file that belong to nothing known."""


def known_modules(config: UNetConfig | None) -> dict[str, str]:
    """How any format may call a module of the UNet (dotted or with underscores) -> its canonical weight."""
    config = config or PRESETS["t2v-turbo-v2"]
    table: dict[str, str] = {}
    for layout in LAYOUTS.values():
        for canonical, theirs in layout.names(config).items():
            if canonical.endswith(".weight"):
                module = theirs.removesuffix(".weight")
                table[module] = table[module.replace(".", "_")] = canonical
    return table
