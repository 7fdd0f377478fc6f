"""Let a model make videos of prompts, and score them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import mean, median

import torch

from ..shapes.render import render
from ..shapes.world import place
from .scoring import CRITERIA, Question, Score, score

Generate = Callable[[list[str], int], torch.Tensor]
"""``generate(prompts, seed)`` -> frames (n, t, h, w, 3) in 0..1; the i-th video has seed + i."""


@dataclass(frozen=True)
class Answer:
    """A question, the score of its video, and a few of its frames."""

    question: Question
    score: Score
    frames: torch.Tensor
    """(k, h, w, 3) in 0..1."""


def answers(generate: Generate, questions: Iterable[Question], *, batch: int = 8, shown: int = 6) -> Iterator[Answer]:
    """Generate and score videos, a batch at a time; `shown` frames of each are kept for the contact sheet."""
    for part in batches(questions, batch):
        videos = generate([question.prompt for question in part], part[0].seed)
        for question, frames in zip(part, videos, strict=True):
            chosen = torch.linspace(0, len(frames) - 1, min(shown, len(frames))).round().long()
            yield Answer(question, score(question.scene, frames), frames[chosen].clone())


def batches(questions: Iterable[Question], size: int) -> Iterator[list[Question]]:
    """Yield up to `size` questions at a time; a batch also ends where seeds are not consecutive."""
    waiting = list(questions)
    while waiting:
        part = [q for i, q in enumerate(waiting[:size]) if q.seed == waiting[0].seed + i]
        waiting = waiting[len(part) :]
        yield part


def truth(questions: list[Question], frames: int = 16, size: int = 64) -> Generate:
    """Return a generator that draws the scenes themselves, as a perfect model would; it checks the analysis."""
    by_seed = {question.seed: question.scene for question in questions}

    def generate(prompts: list[str], seed: int) -> torch.Tensor:
        scenes = [by_seed[seed + i] for i in range(len(prompts))]
        trajectories = [place(scene, frames, torch.Generator().manual_seed(seed + i)) for i, scene in enumerate(scenes)]
        return render(scenes, trajectories, size).permute(0, 1, 3, 4, 2)

    return generate


@dataclass(frozen=True)
class Summary:
    """The results of a group of questions."""

    group: str
    count: int
    right: dict[str, float]
    """Share of right videos, by criterion."""
    speed_error: float | None
    """Mean of `Score.speed_error`. This and the next two are None if no video has such a value."""
    flicker: float | None
    """Mean change of a background pixel between frames, 0..255."""
    jitter: float | None
    """Median over videos of the second difference of the centre, in thousandths of the frame width."""


def summarise(given: Iterable[Answer]) -> list[Summary]:
    """Return one summary per group, in the order in which the groups first appear."""
    groups: dict[str, list[Score]] = {}
    for answer in given:
        groups.setdefault(answer.question.group, []).append(answer.score)
    out = []
    for group, scores in groups.items():
        errors, flickers, jitters = (
            [value for value in values if value is not None]
            for values in zip(*((s.speed_error, s.flicker, s.jitter) for s in scores), strict=True)
        )
        out.append(
            Summary(
                group,
                len(scores),
                {name: sum(s.right[name] for s in scores) / len(scores) for name in CRITERIA},
                mean(errors) if errors else None,
                mean(flickers) if flickers else None,
                1000 * median(jitters) if jitters else None,
            )
        )
    return out
