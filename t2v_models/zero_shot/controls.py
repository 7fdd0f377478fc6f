"""Controls: a ControlNet and the pictures that it follows, one a frame."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ..arguments import real_number
from ..errors import T2VError
from ..image.fit import fit

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Control:
    """A ControlNet of diffusers' with its hints. Source: Zhang et al. 2023, ControlNet (arXiv:2302.05543)."""

    net: Any
    """diffusers' ControlNetModel, on the device of the UNet; see `t2v_models.zero_shot.loading.load_controlnet`."""
    hints: Tensor
    """(n, h, w, 3), 0..1: edges, depth, a pose …, one a frame; a single one holds for all frames."""
    strength: float = 1.0
    """What the ControlNet adds is multiplied by it; 0 is none."""

    def __post_init__(self) -> None:
        if self.hints.ndim != 4 or self.hints.shape[-1] != 3 or not len(self.hints):
            raise T2VError(f"The hints have shape {tuple(self.hints.shape)}: pictures (n, h, w, 3) are wanted.")
        if abs(real_number(self.strength, "The strength of a control")) > 10:
            raise T2VError(f"The strength of a control is {self.strength}: a number from 0 to 2 is usual.")

    def fitted(self, frames: int) -> Control:
        """This control with a hint for each frame; T2VError where there are too few."""
        count = len(self.hints)
        if count == 1:
            return self
        if count < frames:
            raise T2VError(
                f"There are {count} pictures for a control of {frames} frames: give one a frame, or ask for {count} frames."
            )
        if count > frames:
            log.warning("Of %d pictures for a control, the first %d are used, one a frame.", count, frames)
        return replace(self, hints=self.hints[:frames])

    def at(self, numbers: list[int], width: int, height: int) -> Tensor:
        """The hints of frames by their numbers, (f, 3, height, width); the edges of another shape are cut off."""
        chosen = self.hints if len(self.hints) == 1 else self.hints[numbers]
        return fit(chosen, width, height).movedim(-1, 1).expand(len(numbers), -1, -1, -1)
