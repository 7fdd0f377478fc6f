"""The four ways to make a film: each yields a film's latents in order, as soon as they are finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..sampling.fifo import Fifo
from ..sampling.noise import reschedule
from ..sampling.schedule import CLEAN
from ..sampling.windows import fuse
from .coarse_to_fine import by_coarse_to_fine
from .denoiser import Denoiser, Work

if TYPE_CHECKING:
    from .film import Film


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
        denoise.schedule.timesteps(queue_length(denoise, window)),
        denoise.schedule,
        window=2 * half_of(window),
        generator=generator,
        end=CLEAN,
    )


MAKE: dict[str, Callable[[Film], Iterator[Tensor]]] = {
    "windows": _windows,
    "free-noise": _free_noise,
    "coarse-to-fine": by_coarse_to_fine,
    "endless": _endless,
}
