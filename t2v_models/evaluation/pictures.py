"""Evaluate videos that begin, or end, with pictures: whether the picture is kept, and whether the text is followed.

The pictures are the first and the last frames of drawn clips, so that there is room for the motion that the text names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import mean, median
from typing import Any

import torch
from torch import Tensor

from ..image.methods import FRAME_INIT, HOLD, SLIDE, ImageMethod
from ..shapes.render import render
from ..shapes.world import place
from .analysis import measure
from .scoring import Question, questions, score
from .stories import centres

KEPT = 30.0
"""dB of the difference up to which a frame counts as the picture."""

MOST_STEPS = 2.0
"""A step that is longer, in normal steps, is a jump. The normal step is the median, but at least a pixel."""


@dataclass(frozen=True)
class Way:
    """A way from pictures to a video."""

    name: str
    ends: tuple[str, ...]
    """The pictures that it is given, "image" and "end_image", and that it promises to keep unless it is FrameInit."""
    method: ImageMethod
    frame_timesteps: bool = True
    """Whether the model may be given a timestep for every frame; else it is used as one of text alone."""
    every: int = 1
    """Where no way is chosen, it gets every so many-th picture only: some ways take long."""
    options: dict[str, Any] = field(default_factory=dict)
    """Of the pipeline."""

    @property
    def keeps(self) -> bool:
        """Whether it promises to keep its pictures."""
        return self.method.name != FRAME_INIT


WAYS = {
    way.name: way
    for way in (
        Way("first frame", ("image",), ImageMethod(HOLD)),
        Way("last frame", ("end_image",), ImageMethod(HOLD)),
        Way("both ends", ("image", "end_image"), ImageMethod(HOLD)),
        Way("frame-init", ("image",), ImageMethod(FRAME_INIT), frame_timesteps=False),
        Way("frame-init, t=400", ("image",), ImageMethod(FRAME_INIT, timestep=400), frame_timesteps=False),
        Way("hold, r=0", ("image",), ImageMethod(HOLD, resample=0), frame_timesteps=False),
        Way("hold, r=4", ("image",), ImageMethod(HOLD, resample=4), frame_timesteps=False),
        Way("both held, r=4", ("image", "end_image"), ImageMethod(HOLD, resample=4), frame_timesteps=False, every=2),
        Way("slide, K=8", ("image",), ImageMethod(SLIDE, known=8), False, 5, {"steps": 10}),
        Way("slide, K=15", ("image",), ImageMethod(SLIDE, known=15), False, 20, {"steps": 10}),
    )
}
"""By name: first those of the built-in model, which was trained with a timestep for every frame, then those of any model of
texts, measured with the built-in one at one timestep for all frames."""


@dataclass(frozen=True)
class Verdict:
    """The evaluation of one video."""

    way: Way
    question: Question
    first: float
    """dB of the first frame's difference from the first picture; `last` likewise."""
    last: float
    right: dict[str, bool]
    """Whether the first frame's object has the picture's "colour", "shape" and "place"; whether the "motion", and "all" of
    the video, is as the text says."""
    jump: float
    """The longest step in normal steps."""
    seconds: float
    shown: Tensor
    """(k, h, w, 3), some of its frames."""

    @property
    def kept(self) -> bool:
        """Whether all pictures that were given are kept."""
        return all({"image": self.first, "end_image": self.last}[end] >= KEPT for end in self.way.ends)


def asked(count: int, seed: int = 0) -> list[Question]:
    """Return scenes of one object: of five, three move straight, one in a combination never trained on, one otherwise."""
    other = count // 5
    return questions({"plain": count - 2 * other, "held out": other, "other": other}, seed)


def drawn(question: Question, frames: int = 16, size: int = 64) -> Tensor:
    """Return the drawn clip (t, h, w, 3), 0..1, whose ends are a question's pictures."""
    random = torch.Generator().manual_seed(question.seed)
    return render([question.scene], [place(question.scene, frames, random)], size)[0].movedim(1, -1)


def judge(way: Way, question: Question, frames: Tensor, seconds: float = 0.0) -> Verdict:
    """Evaluate the frames (t, h, w, 3), 0..1, of a video that was made in some way."""
    clip = drawn(question, len(frames), frames.shape[2])
    found, wanted = measure(frames[:1]), measure(clip[:1])
    item, whole = question.scene.items[0], score(question.scene, frames).right
    right = {"motion": whole["motion"], "all": whole["all"]}
    if len(found.objects) == len(wanted.objects) == 1:
        one, other = found.objects[0], wanted.objects[0]
        away = float((one.centres - other.centres).norm())
        right |= {"colour": one.colour == item.colour, "shape": one.shape == other.shape}
        right["place"] = away <= 1 / frames.shape[2]
    else:
        right |= {"colour": False, "shape": False, "place": False}
    step = centres(frames).diff(dim=0).norm(dim=-1)
    jump = float(step.max()) / max(float(step.median()), 1 / frames.shape[2])
    shown = frames[torch.linspace(0, len(frames) - 1, 6).round().long()].clone()
    return Verdict(way, question, psnr(frames[0], clip[0]), psnr(frames[-1], clip[-1]), right, jump, seconds, shown)


def psnr(one: Tensor, other: Tensor) -> float:
    """Return 10 log10(1 / mean squared difference) of pictures in 0..1, in dB; at most 100."""
    return float(-10 * (one - other).square().mean().clamp(min=1e-10).log10())


def table(given: Sequence[Verdict]) -> str:
    """Return lines of text, one for each way: shares in per cent, and differences in dB (least, median)."""
    head = ["way", "videos", "colour", "shape", "place", "first, dB", "last, dB", f">= {KEPT:.0f} dB", "motion", "all"]
    head += ["no jump", "seconds"]
    rows = []
    for name in dict.fromkeys(verdict.way.name for verdict in given):
        part = [verdict for verdict in given if verdict.way.name == name]
        way = part[0].way
        decibels = [
            f"{min(values):.1f} {median(values):.1f}" if end in way.ends else "-"
            for end, values in (("image", [v.first for v in part]), ("end_image", [v.last for v in part]))
        ]
        begins = "image" in way.ends

        def share(values: list[bool]) -> str:
            return f"{100 * mean(values):.0f}"

        about = [share([v.right[key] for v in part]) if begins else "-" for key in ("colour", "shape", "place")]
        rows.append(
            [name, str(len(part)), *about, *decibels, share([v.kept for v in part])]
            + [share([v.right[key] for v in part]) for key in ("motion", "all")]
            + [share([v.jump <= MOST_STEPS for v in part]), f"{mean(v.seconds for v in part):.1f}"]
        )
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "  ".join(
            [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        )
        for first, *others in [head, *rows]
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
