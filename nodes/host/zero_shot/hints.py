"""What the log says of pictures, such as edges or depth, whose number is not that of the frames."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

log = logging.getLogger(__name__)


def announce(conds: Mapping[str, list[dict[str, Any]]], rows: int, frames: int) -> None:
    """Log how the host spreads the pictures of a run's conditionings over a batch of rows, where they are not one per frame."""
    given = [entry for entries in conds.values() for entry in entries or ()]
    controls = {id(control): control for entry in given for control in _chain(entry.get("control"))}
    lengths = {
        len(control.cond_hint_original) for control in controls.values() if control.cond_hint_original is not None
    }
    for length in sorted(lengths - {1, frames, rows}):
        log.warning(
            "A ControlNet has %d hints for %d frames, and %s; give one hint, or one for each frame.",
            length,
            frames,
            f"the first {frames} are taken" if length > frames else f"frame {length + 1} has the first hint again",
        )
    pictures = (entry.get("concat_latent_image") for entry in given)
    for length in sorted({len(each) for each in pictures if each is not None} - {1, rows}):
        log.warning(
            "There are %d pictures to edit for %d frames, and the host %s; give one, or one for each frame.",
            length,
            rows,
            "leaves some out" if length > rows else "takes some of them several times",
        )


def _chain(control: Any) -> Iterator[Any]:
    """A ControlNet and those before it."""
    while control is not None:
        yield control
        control = getattr(control, "previous_controlnet", None)
