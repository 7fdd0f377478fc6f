"""A film from coarse to fine: key frames, what lies between them, and the changes of scene once more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..sampling.keyframes import (
    calls_between,
    coarse_to_fine,
    key_numbers,
    loop_strides,
    redone,
    sample_between,
    segment_count,
    strides,
    unsteadiness,
)
from ..sampling.story import Story
from ..sampling.windows import fuse
from .denoiser import Denoiser, Work

if TYPE_CHECKING:
    from .film import Film


KEYS_A_SCENE = 4
"""Key frames that the shortest scene of a story gets, as far as one window holds them: fewer show no way to go."""

SKIPPED = 0.2
"""Share of the steps that are left out where a change of scene is done once more: a little of what was there stays."""

NEAR = 3
"""Gaps of so many frames are filled at the usual pace: fast is thrice the usual pace, and ten times slow. Filled at a
faster pace than the key frames go, an object overshoots and comes back at a slant."""


def by_coarse_to_fine(film: Film) -> Iterator[Tensor]:
    """Key frames, then segments between fixed ends, then the changes of scene once more; what is finished is kept.

    Key frames lie far apart, so between them things move fast; in a clip that fills a gap they move slowly. The model
    is told so: by a word for the pace, where it understands one, and by the frame rate, where it knows that. Where the
    model takes known frames clean, they tell it more than a text does, and guidance would only hurry it past them: there
    only the key frames have it. Where a scene ends a model easily loses an object and takes it up elsewhere, and nothing
    later can mend that: so the key frames are sketched a few times, and the sketch that moves most evenly is taken. A key
    frame beside a change of scene can be a little of both scenes. So what lies around each change is noised and done
    again as one clip at the film's own rate and the pace of its gaps, which shows how one scene leads to the next.

    A loop's key frames are one window all around it, denoised from several beginnings: windows that follow each other
    around a longer loop do not agree about where things are. Where its last scene leads to its first nothing is done
    again: its beginning is handed out long before its end is there.
    """
    settings, frames = film.settings, film.shape[2]
    window, looped = settings.window, settings.window.looped
    ring, rounds = window, []  # of a loop: how its key frames are seen, and from where at each step
    family = film.pipeline.family
    shortest = min(scene.end - scene.start for scene in film.story.scenes)
    if looped:
        levels = loop_strides(frames, window.length)
        count = len(key_numbers(frames, levels[0], looped=True)) - 1
        ring = replace(window, length=count, overlap=count * window.overlap // window.length, frames=count)
        rounds = [ring.spans(i) for i in range(settings.steps)]
    else:
        levels = strides(frames, window.length, max(1, shortest / KEYS_A_SCENE))
    paces = _paces(levels, *family.speed_words) if family.speed_words else [""] * len(levels)
    denoisers = {
        stride: film.denoiser(pace, stride, guided=stride == levels[0] or not family.frame_levels)
        for stride, pace in zip(levels, paces, strict=True)
    }
    changes = _changes(film.story, window.length) if len(levels) > 1 else []
    skipped = round(SKIPPED * settings.steps)
    cost_of_keys = settings.sketches * (sum(map(len, rounds)) or settings.steps)
    cost, cost_of_change = (
        calls_between(steps, clean_levels=family.frame_levels, resample=settings.resample)
        for steps in (settings.steps, settings.steps - skipped)
    )
    segments = segment_count(frames, levels, looped=looped)
    work = Work(film, cost_of_keys + segments * cost + len(changes) * cost_of_change)

    def sample(
        denoise: Denoiser,
        clean: Tensor,
        known: Tensor,
        numbers: Sequence[Sequence[int]],
        key: Sequence[int],
        repaint: bool = False,
    ) -> Tensor:
        """Clips of those frames, `known` of which are there; all are, where they are done once more."""
        generator, at = film.noise(*key), torch.tensor([list(each) for each in numbers])
        at = at % frames if looped else at
        around = iter([] if known.any() else rounds)

        def predict(x: Tensor, levels: Tensor) -> Tensor:
            def part(span: list[int]) -> Tensor:
                part = denoise(x[:, :, span].to(denoise.device), levels[:, span], at[:, span]).cpu()
                work.add(len(x))
                return part

            spans = next(around, None)
            if spans is None:
                prediction = part(list(range(x.shape[2])))
            else:
                prediction = fuse(map(part, spans), spans, ring.weights, x.shape[2])
            film.show(partial(denoise.clean, x, levels, prediction))
            return prediction

        return sample_between(
            predict,
            torch.randn(clean.shape, generator=generator),
            known,
            clean,
            denoise.timesteps[skipped if repaint else 0 :],
            denoise.schedule,
            clean_levels=family.frame_levels,
            repaint=repaint,
            resample=settings.resample if known.any() else 0,
            generator=generator,
        )

    def keys(numbers: Sequence[int]) -> Tensor:
        nothing = torch.zeros(settings.sketches, film.shape[1], len(numbers), *film.shape[3:])
        known = torch.zeros(len(numbers), dtype=torch.bool)

        def steadiest() -> Tensor:
            sketches = sample(denoisers[levels[0]], nothing, known, [numbers] * settings.sketches, [0])
            closed = torch.cat([sketches, sketches[:, :, :1]], dim=2) if looped else sketches
            return sketches[unsteadiness(closed).argmin()][None]

        return work.once("keys", steadiest, cost_of_keys)

    def fill(ends: Tensor, numbers: Sequence[Sequence[int]], stride: int) -> Tensor:
        first = numbers[0][0]
        known = _ends(len(numbers[0]))
        clean = ends.new_zeros(*ends.shape[:2], len(known), *ends.shape[3:])
        clean[:, :, known] = ends

        def made() -> Tensor:
            return sample(denoisers[stride], clean, known, numbers, [stride, first])

        return work.once(f"stride-{stride}-from-{first}", made, len(numbers) * cost)

    def repainted(clip: Tensor, first: int) -> Tensor:
        numbers, known = [range(first, first + clip.shape[2])], _ends(clip.shape[2])

        def made() -> Tensor:
            return sample(denoisers[1], clip, known, numbers, [0, first], repaint=True)

        return work.once(f"change-from-{first}", made, cost_of_change)

    parts = coarse_to_fine(frames, levels, keys, fill, batch=settings.batch, looped=looped)
    yield from redone(parts, changes, repainted)


def _ends(frames: int) -> Tensor:
    """(frames,) true for the first and the last."""
    known = torch.zeros(frames, dtype=torch.bool)
    known[[0, -1]] = True
    return known


def _changes(story: Story, window: int) -> list[tuple[int, int]]:
    """(first frame, the one after the last) of a clip around every change of scene: a window, or less in short scenes.

    A frame's scene is the one whose text it has most of.
    """
    _, lengths = story.blend().argmax(dim=1).unique_consecutive(return_counts=True)
    clips, at = [], 0
    for before, after in pairwise(lengths.tolist()):
        at += before
        half = min(window, before, after) // 2
        if half > 1:
            clips.append((at - half, at + half))
    return clips


def _paces(levels: Sequence[int], slow: str, fast: str) -> list[str]:
    """A word for the pace at each level: what is fast from key frame to key frame is slow, or usual, between them."""
    words = [fast] if len(levels) > 1 else [""]
    for coarse, fine in pairwise(levels):
        words.append("" if words == [fast] and coarse <= NEAR * fine else slow)
    return words
