"""The part of a run's conditionings that belongs to some frames of the video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .. import stories

PER_FRAME = ("pooled_output", "mask", "concat_latent_image", "concat_mask", "concat_image")
"""Entries of a conditioning's dictionary that hold a tensor with a row for each frame, or one row for all."""


class FrameConditionings:
    """A run's positive and negative conditioning, cut to some of its frames.

    Args:
        positive, negative: CONDITIONINGs of the host, with stories, masks, ControlNets and pictures to edit, or without.
        frames: of the whole video.
        by_chunk: whether all new frames of a chunk have the text of the first of them, not each its own.
    """

    def __init__(self, positive: list, negative: list, frames: int, *, by_chunk: bool = False) -> None:
        self.both, self.frames, self.by_chunk = (positive, negative), frames, by_chunk

    def of(self, numbers: Sequence[int]) -> tuple[list, list]:
        """Return both CONDITIONINGs for the frames of these numbers."""
        controls: dict[
            int, Any
        ] = {}  # shared, since the host evaluates two conditionings together only with one ControlNet
        positive, negative = ([self._cut(*part, numbers, controls) for part in each] for each in self.both)
        return positive, negative

    def _cut(self, text: Tensor, extra: dict[str, Any], numbers: Sequence[int], controls: dict[int, Any]) -> list[Any]:
        """One part of a CONDITIONING, [text, dictionary], for some frames."""
        speaking = [numbers[0], *numbers[1:2] * (len(numbers) - 1)] if self.by_chunk else numbers
        out = {key: value for key, value in extra.items() if key not in (stories.KEY, stories.POOLED)}
        for key in PER_FRAME:
            if isinstance(out.get(key), Tensor):
                out[key] = rows(out[key], speaking if key == "pooled_output" else numbers)
        if out.get("control") is not None:
            out["control"] = _control(out["control"], numbers, controls)
        story = stories.of_frames(text, extra, speaking, self.frames)
        if story is None:
            return [rows(text, speaking), out]
        texts, pooled = story
        return [texts, out if pooled is None else {**out, "pooled_output": pooled}]


def rows(values: Tensor, numbers: Sequence[int]) -> Tensor:
    """Return the rows of these frames; one row is for all, and fewer rows than frames are taken from the start again."""
    return values if len(values) == 1 else values[[number % len(values) for number in numbers]]


def _control(control: Any, numbers: Sequence[int], made: dict[int, Any]) -> Any:
    """A copy of a ControlNet and of those before it, with the hints of some frames. made: copies, by the original's id."""
    if id(control) not in made:
        copy = control.copy()
        if control.cond_hint_original is not None:
            copy.cond_hint_original = rows(control.cond_hint_original, numbers)
        copy.extra_concat_orig = [rows(each, numbers) for each in control.extra_concat_orig]
        if control.previous_controlnet is not None:
            copy.set_previous_controlnet(_control(control.previous_controlnet, numbers, made))
        made[id(control)] = copy
    return made[id(control)]
