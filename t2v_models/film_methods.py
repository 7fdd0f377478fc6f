"""The four ways to make a film: each yields a film's latents in order, as soon as they are finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .pipeline import Pipeline
from .sampling.ddim import alphas_cumprod, ddim_step, timesteps_of, to_clean
from .sampling.fifo import Fifo
from .sampling.guidance import classifier_free
from .sampling.infill import (
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
from .sampling.noise import reschedule
from .sampling.story import Story, Told, same_form
from .sampling.windows import fuse, together

if TYPE_CHECKING:
    from .film import Film, Settings


KEYS_A_SCENE = 4
"""Key frames that the shortest scene of a story gets, as far as one window holds them: fewer show no way to go."""

SKIPPED = 0.2
"""Share of the steps that are left out where a change of scene is done once more: a little of what was there stays."""

NEAR = 3
"""Gaps of so many frames are filled at the usual pace: fast is thrice the usual pace, and ten times slow. Filled at a
faster pace than the key frames go, an object overshoots and comes back at a slant."""


class Denoiser:
    """A pipeline's guided prediction for any frames of a story, each at a noise level of its own."""

    def __init__(self, pipeline: Pipeline, positive: Told, negative: Told, settings: Settings, fps: float) -> None:
        self.pipeline, self.settings, self.fps = pipeline, settings, fps
        self.positive, self.negative = positive, negative
        self.abar = alphas_cumprod(pipeline.scheduler_config)
        self.kind: str = pipeline.scheduler_config.get("prediction_type", "epsilon")
        self.device = pipeline.device
        self.timesteps: Tensor = timesteps_of(pipeline.scheduler_config, settings.steps)

    @property
    def guided(self) -> bool:
        """Whether a negative prompt is asked, too."""
        return self.settings.guidance_scale != 1 and not self.pipeline.unet.config.guidance_dim

    def __call__(self, x: Tensor, levels: Tensor, numbers: Tensor, options: dict[str, Any] | None = None) -> Tensor:
        """x: (b, 4, t, h, w), levels and numbers: (b, t) -> the prediction, like x; clips in groups, for their memory."""
        unet, b, most = self.pipeline.unet, x.shape[0], together(*x.shape[2:])
        if b > most:
            groups = zip(x.split(most), levels.split(most), numbers.split(most), strict=True)
            return torch.cat([self(*group, options) for group in groups])
        context = self.positive.at(numbers)
        if self.guided:
            context = torch.cat(same_form(self.negative.at(numbers), context, x.shape[2]))
        if context.ndim == 3 and torch.equal(levels, levels[:, :1].expand_as(levels)):
            levels = levels[:, 0]
        if self.pipeline.input_scale is not None:
            scale = self.pipeline.input_scale[levels].to(x)
            x = x * (scale[:, None, None, None, None] if levels.ndim == 1 else scale[:, None, :, None, None])
        conditions = self.pipeline.conditions(b, self.fps, self.settings.guidance_scale)
        prediction = unet(x.to(unet.dtype), levels.to(self.device), context, options=options, **conditions).float()
        self.pipeline.check_finite(prediction)
        if not self.guided:
            return prediction
        uncond, cond = prediction.chunk(2)
        return classifier_free(cond, uncond, self.settings.guidance_scale)

    def at_once(self, x: Tensor, i: int, options: dict[str, Any] | None = None) -> Tensor:
        """x: (1, 4, t, h, w), all frames of a film or its first ones -> the prediction at step i, in one pass."""
        frames = x.shape[2]
        levels = self.timesteps[i].expand(1, frames)
        return self(x.to(self.device), levels, torch.arange(frames)[None], options).cpu()

    def clean(self, x: Tensor, levels: Tensor, prediction: Tensor) -> Tensor:
        """What becomes of x, (b, 4, t, h, w), at levels, (b, t), by that prediction."""
        return to_clean(x, prediction, self.abar[levels].to(x)[:, None, :, None, None], self.kind)[0]

    def step(self, x: Tensor, i: int, prediction: Tensor) -> Tensor:
        """x after DDIM's step i; at the end everything is signal."""
        after = self.abar[self.timesteps[i + 1]] if i + 1 < len(self.timesteps) else torch.tensor(1.0)
        return ddim_step(x, prediction, self.abar[self.timesteps[i]].float(), after.float(), self.kind)


class Work:
    """How much of a film is done, counted in clips that went through the model once; what was kept is done."""

    def __init__(self, film: Film, total: int) -> None:
        self.film, self.total, self.done = film, total, 0

    def add(self, clips: int) -> None:
        """So many clips went through the model."""
        self.done += clips
        self.film.tick(self.done, self.total)

    def once(self, name: str, make: Callable[[], Tensor], clips: int) -> Tensor:
        """What the film's store has under that name, or what is made now, by so many clips."""
        end = self.done + clips
        latents = self.film.store.once(name, make)
        self.reach(end)
        return latents

    def reach(self, done: int) -> None:
        """At least so much of the film is done."""
        if self.done < done:
            self.add(done - self.done)


Predict = Callable[[Tensor, int, Work], Tensor]
"""``predict(x, i, work)`` -> the prediction for x at step i, like x; the work for it is added."""


def _together(
    film: Film, denoise: Denoiser, noise: Tensor, predict: Predict, clips: Callable[[int], int]
) -> Iterator[Tensor]:
    """All frames take every step together, step i by so many clips; the state after each can be taken up again."""
    steps = range(len(denoise.timesteps))
    work = Work(film, sum(map(clips, steps)))
    kept = film.store.get("state")
    first, x = (0, noise) if kept is None else (int(kept["step"]), kept["latents"])
    work.reach(sum(map(clips, steps[:first])))
    for i in steps[first:]:
        prediction = predict(x, i, work)
        film.show(partial(denoise.clean, x, denoise.timesteps[i].expand(1, x.shape[2]), prediction))
        x = denoise.step(x, i, prediction)
        film.store.put("state", latents=x, step=torch.tensor(i + 1))
    yield from x.split(film.settings.window.length, dim=2)


def _windows(film: Film) -> Iterator[Tensor]:
    """Every step denoises all windows and averages them."""
    settings, frames, denoise = film.settings, film.shape[2], film.denoiser()

    def predict(x: Tensor, i: int, work: Work) -> Tensor:
        spans = settings.window.spans(i)

        def parts() -> Iterator[Tensor]:
            for start in range(0, len(spans), settings.batch):
                group = torch.tensor(spans[start : start + settings.batch])  # (b, length)
                clips = x[0][:, group].transpose(0, 1).to(denoise.device)
                levels = denoise.timesteps[i].expand(group.shape)
                predictions = denoise(clips, levels, group).cpu()
                work.add(len(group))
                yield from predictions.split(1)

        return fuse(parts(), spans, settings.window.weights, frames)

    noise = torch.randn(film.shape, generator=film.noise(0))
    yield from _together(film, denoise, noise, predict, lambda i: len(settings.window.spans(i)))


def _free_noise(film: Film) -> Iterator[Tensor]:
    """One pass over all frames, temporal attention in windows, noise that repeats itself in another order."""
    window, denoise, generator = film.settings.window, film.denoiser(), film.noise(0)
    stride = max(1, window.length - window.overlap)
    windowed = window.temporal()
    options = {"temporal_windows": windowed} if windowed else None
    noise = reschedule(torch.randn(film.shape, generator=generator), window.length, stride, generator)

    def predict(x: Tensor, i: int, work: Work) -> Tensor:
        prediction = denoise.at_once(x, i, options)
        work.add(1)
        return prediction

    yield from _together(film, denoise, noise, predict, lambda i: 1)


def _coarse_to_fine(film: Film) -> Iterator[Tensor]:
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
    paces = _paces(levels, *family.pace) if family.pace else [""] * len(levels)
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
            denoise.abar,
            denoise.kind,
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


def _endless(film: Film) -> Iterator[Tensor]:
    """A first clip, made or given, then frame after frame; after every window of them the queue can be taken up again."""
    settings, frames, denoise = film.settings, film.shape[2], film.denoiser()
    length = settings.window.length
    count = min(length, frames) if film.clip is None else len(film.clip)
    first_steps = 0 if film.clip is not None else len(denoise.timesteps)
    rounds = queue_length(denoise, length) + frames - count if count < frames else 0
    work = Work(film, first_steps + rounds)

    def beginning() -> Tensor:
        if film.clip is not None:
            return film.pipeline.encode_video(film.clip[None]).cpu()
        x = torch.randn((*film.shape[:2], count, *film.shape[3:]), generator=film.noise(0))
        for i in range(len(denoise.timesteps)):
            prediction = denoise.at_once(x, i)
            work.add(1)
            film.show(partial(denoise.clean, x, denoise.timesteps[i].expand(1, count), prediction))
            x = denoise.step(x, i, prediction)
        return x

    clip = work.once("beginning", beginning, first_steps)
    yield clip
    following = continue_clip(denoise, clip, length, film.noise(1), lambda: work.add(1))
    for first in range(count, frames, length):
        last = min(first + length, frames)
        kept = film.store.get(f"from-{first}")
        if kept is None:
            part = []
            for _ in range(first, last):
                part.append(next(following))
                film.show(partial(torch.cat, part, dim=2))
            kept = {"latents": torch.cat(part, dim=2)}
            film.store.put(f"from-{first}", **kept, **following.state())
        else:
            following.restore(kept)
            work.reach(work.total - (frames - last))
        yield kept["latents"]


def half_of(window: int) -> int:
    """Frames of half a window of the queue, whose windows have an even length."""
    return max(1, window // 2)


def queue_length(denoise: Denoiser, window: int) -> int:
    """Frames in the queue of `continue_clip`: the steps, rounded to half windows. So many rounds pass before the first."""
    half = half_of(window)
    return max(1, round(len(denoise.timesteps) / half)) * half


def continue_clip(
    denoise: Denoiser, clip: Tensor, window: int, generator: torch.Generator, told: Callable[[], None] = lambda: None
) -> Fifo:
    """The frames that follow a clip, (1, 4, t, h, w) clean latents on the CPU, one by one, without end.

    told: called after every round.
    """

    def predict(x: Tensor, levels: Tensor, numbers: Tensor) -> Tensor:
        prediction = denoise(x.to(denoise.device), levels, numbers).cpu()
        told()
        return prediction

    return Fifo(
        predict,
        clip,
        timesteps_of(denoise.pipeline.scheduler_config, queue_length(denoise, window)),
        denoise.abar,
        denoise.kind,
        window=2 * half_of(window),
        generator=generator,
        final_abar=1.0,
    )


MAKE: dict[str, Callable[[Film], Iterator[Tensor]]] = {
    "windows": _windows,
    "free-noise": _free_noise,
    "coarse-to-fine": _coarse_to_fine,
    "endless": _endless,
}
