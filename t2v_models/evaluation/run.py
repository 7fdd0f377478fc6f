"""Ask a model for videos and score them."""

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
    """A question, what came of it, and a few of its frames (k, h, w, 3) in 0..1."""

    question: Question
    score: Score
    frames: torch.Tensor


def answers(generate: Generate, questions: Iterable[Question], *, batch: int = 8, kept: int = 6) -> Iterator[Answer]:
    """Generate and score, a batch at a time; of each video `kept` frames are kept for the contact sheet."""
    for part in batches(questions, batch):
        videos = generate([question.prompt for question in part], part[0].seed)
        for question, frames in zip(part, videos, strict=True):
            chosen = torch.linspace(0, len(frames) - 1, min(kept, len(frames))).round().long()
            yield Answer(question, score(question.scene, frames), frames[chosen].clone())


def batches(questions: Iterable[Question], size: int) -> Iterator[list[Question]]:
    """So many at a time, or fewer: the seeds of a batch are consecutive, so it ends where they are not."""
    waiting = list(questions)
    while waiting:
        part = [q for i, q in enumerate(waiting[:size]) if q.seed == waiting[0].seed + i]
        waiting = waiting[len(part) :]
        yield part


def truth(questions: list[Question], frames: int = 16, size: int = 64) -> Generate:
    """What a perfect model would answer: the scenes themselves, drawn. For checking the analysis."""
    by_seed = {question.seed: question.scene for question in questions}

    def generate(prompts: list[str], seed: int) -> torch.Tensor:
        scenes = [by_seed[seed + i] for i in range(len(prompts))]
        paths = [place(scene, frames, torch.Generator().manual_seed(seed + i)) for i, scene in enumerate(scenes)]
        return render(scenes, paths, size).permute(0, 1, 3, 4, 2)

    return generate


@dataclass(frozen=True)
class Summary:
    """A group of answers in numbers."""

    group: str
    count: int
    right: dict[str, float]
    """Share that is right, by criterion."""
    speed_error: float | None
    """Mean relative distance of the speed from what its adverb means; this and the next, None where none is known."""
    flicker: float | None
    """Mean change of a background pixel between frames, 0..255."""
    jitter: float | None
    """Median over videos: second difference of the centre, in thousandths of the frame width."""


def summarise(given: Iterable[Answer]) -> list[Summary]:
    """One summary per group, in the order in which the groups first appear."""
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
