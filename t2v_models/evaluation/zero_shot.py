"""Evaluate zero-shot videos of an image model: whether all frames show one object that moves along the motion field.

Where prompts leave the colour, the shape or both to the model, nothing but the frames themselves holds them together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

import torch
from torch import Tensor

from ..shapes.world import BACKGROUNDS, DIRECTIONS, OBJECT_COLOURS, SHAPES, STRAIGHT
from ..zero_shot.motion import Motion
from .analysis import Found, measure

FRAMES = 8
STRENGTH = 12.0
"""Of the motion, in pixels of a 512-pixel frame per frame."""
STILL = 0.024
"""Distance in frame widths from which on an object has moved."""
CRITERIA = ("one object", "colour", "shape", "colour and shape", "direction", "prompt")


@dataclass(frozen=True)
class Question:
    """A prompt, and the direction in which its object should move."""

    colour: str
    shape: str
    """Empty where the model chooses; so is `colour`."""
    background: str
    direction: str
    seed: int

    @property
    def motion(self) -> Motion:
        """The motion field; content moves against its strengths."""
        right, down = DIRECTIONS[self.direction]
        return Motion(x=-STRENGTH * right, y=-STRENGTH * down)

    @property
    def prompt(self) -> str:
        """The prompt, as in ``a red shape on a blue background``."""
        words = f"{self.colour} {self.shape or 'shape'}".strip()
        article = "an" if words[0] in "aeio" else "a"
        ground = "" if self.background == "black" else f" on a {self.background} background"
        return f"{article} {words}{ground}"


@dataclass(frozen=True)
class Verdict:
    """The evaluation of one video."""

    question: Question
    right: dict[str, bool]
    """By criterion."""
    frames: Tensor
    """(t, h, w, 3) in 0..1."""


def asked(count: int, seed: int = 0, *, named: bool = True) -> list[Question]:
    """Return prompts, each with a direction.

    Args:
        named: whether prompts name colour and shape; else they name the shape, the colour, and neither in turn.
    """
    random = torch.Generator().manual_seed(seed)

    def pick(choices: Sequence[str]) -> str:
        return choices[int(torch.randint(len(choices), (), generator=random))]

    questions = []
    for index in range(count):
        colour = pick(OBJECT_COLOURS) if named or index % 3 == 1 else ""
        shape = pick(SHAPES) if named or index % 3 == 0 else ""
        background = pick([name for name in BACKGROUNDS if name != colour]) if index // 4 % 2 else "black"
        direction = STRAIGHT[(index + index // 4) % len(STRAIGHT)]
        questions.append(Question(colour, shape, background, direction, 10_000 * (seed + 1) + index))
    return questions


def judge(question: Question, frames: Tensor) -> Verdict:
    """Evaluate the frames (t, h, w, 3), 0..1, of a video; each frame is looked at by itself."""
    seen = [measure(frame[None]) for frame in frames]
    objects = [each.objects[0] for each in seen if each.counts == (1,) and len(each.objects) == 1]
    right = {name: False for name in CRITERIA} | {"one object": len(objects) == len(frames)}
    if right["one object"]:
        colours, shapes = {each.colour for each in objects}, {each.shape for each in objects}
        right["colour"], right["shape"] = len(colours) == 1, len(shapes) == 1
        right["colour and shape"] = right["colour"] and right["shape"]
        right["direction"] = follows(objects, question.direction)
        right["prompt"] = (
            colours <= {question.colour or objects[0].colour}
            and shapes <= {question.shape or objects[0].shape}
            and all(each.background == question.background for each in seen)
        )
    return Verdict(question, right, frames)


def follows(objects: Sequence[Found], direction: str) -> bool:
    """Whether an object, seen frame by frame, moves within 45 degrees of a direction of the world."""
    centres = torch.cat([each.centres for each in objects])  # (t, 2)
    time = torch.arange(len(centres), dtype=torch.float32) - (len(centres) - 1) / 2
    way = (time[:, None] * centres).sum(0) / time.square().sum() * (len(centres) - 1)
    along = float(way @ torch.tensor(DIRECTIONS[direction]))
    return along >= STILL and along >= 0.7071 * float(way.norm())


def table(groups: Mapping[str, Sequence[Verdict]]) -> str:
    """Return lines of text, one for each way of making the videos: shares of right ones in per cent."""
    head = ["prompts and frames", "videos", *CRITERIA]
    rows = [
        [name, str(len(part)), *(f"{100 * mean(verdict.right[key] for verdict in part):.1f}" for key in CRITERIA)]
        for name, part in groups.items()
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "  ".join([first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(others, widths[1:], strict=True))])
        for first, *others in [head, *rows]
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
