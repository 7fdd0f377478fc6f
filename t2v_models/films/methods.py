"""The ways to make a film: each yields a film's latents in order, as soon as they are finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from ..sampling.fifo import Fifo
from ..sampling.keyframes import HeldFrames, calls_between
from ..sampling.noise import reschedule
from ..sampling.schedule import CLEAN
from ..sampling.windows import fuse
from .clip_after_clip import by_clip_after_clip
from .coarse_to_fine import by_coarse_to_fine
from .guided_model import GuidedModel
from .job import FilmJob
from .model import codec_of
from .settings import CLIP_AFTER_CLIP
from .work import Work

Predict = Callable[[Tensor, Tensor, int, Work], Tensor]
"""``predict(x, timesteps, i, work)`` -> the prediction for x, (1, 4, t, h, w) at timesteps (1, t), in step i, like x; it adds
its calls of the model to the work."""


def by_windows(job: FilmJob) -> Iterator[Tensor]:
    """Denoise overlapping windows at every step and average them. Source: Gen-L-Video, see `sampling.windows`."""
    settings, frames, model = job.settings, job.shape[2], job.guided_model()

    def predict(x: Tensor, timesteps: Tensor, i: int, work: Work) -> Tensor:
        spans = settings.window.spans(i)

        def parts() -> Iterator[Tensor]:
            for start in range(0, len(spans), settings.batch):
                group = torch.tensor(spans[start : start + settings.batch])  # (b, length)
                clips = x[0][:, group].transpose(0, 1).to(model.device)
                predictions = model(clips, timesteps[0][group], group).cpu()
                work.add(len(group))
                yield from torch.split(predictions, 1)

        return fuse(parts(), spans, settings.window.weights, frames)

    noise = torch.randn(job.shape, generator=job.noise(0))
    yield from _step_by_step(job, model, noise, predict, lambda i: len(settings.window.spans(i)))


def by_free_noise(job: FilmJob) -> Iterator[Tensor]:
    """Denoise all frames in one pass: temporal attention in windows, noise that repeats in another order.

    Source: FreeNoise, see `sampling.noise`.
    """
    window, model, generator = job.settings.window, job.guided_model(), job.noise(0)
    stride = max(1, window.length - window.overlap)
    windowed = window.temporal()
    options = {"temporal_windows": windowed} if windowed else None
    noise = reschedule(torch.randn(job.shape, generator=generator), window.length, stride, generator)

    def predict(x: Tensor, timesteps: Tensor, i: int, work: Work) -> Tensor:
        prediction = model.all_frames(x, timesteps, options)
        work.add(1)
        return prediction

    yield from _step_by_step(job, model, noise, predict, lambda i: 1)


def _step_by_step(
    job: FilmJob, model: GuidedModel, noise: Tensor, predict: Predict, clips: Callable[[int], int]
) -> Iterator[Tensor]:
    """Take every step with all frames together, from the last step that the store has. clips: the work of step i."""
    held = job.held(noise, range(noise.shape[2]))
    costs = [clips(i) * held.rounds(following) for i, following in enumerate(model.following)]
    work = Work(job, sum(costs))
    stored = job.store.get("state")
    first, x = (0, noise) if stored is None else (int(stored["step"]), stored["latents"])
    work.reach(sum(costs[:first]))
    for i, latents in _steps(job, model, held, x, first, predict, work):
        job.store.put("state", latents=latents, step=torch.tensor(i + 1))
        x = latents
    yield from torch.split(torch.where(held.mask, held.clean, x), job.settings.window.length, dim=2)


def _steps(
    job: FilmJob, model: GuidedModel, held: HeldFrames, x: Tensor, first: int, predict: Predict, work: Work
) -> Iterator[tuple[int, Tensor]]:
    """Yield each step's number, from the first to make, and the latents after it."""
    if not first:
        x = held.put_into(x, model.timesteps[0])
    for i in range(first, len(model.timesteps)):

        def guided(x: Tensor, timesteps: Tensor, i: int = i) -> Tensor:
            prediction = predict(x, timesteps, i, work)
            job.show(partial(model.clean, x, timesteps, prediction))
            return prediction

        x = held.step(guided, x, model.timesteps[i], model.following[i], job.noise(2, i))
        yield i, x


def by_endless(job: FilmJob) -> Iterator[Tensor]:
    """Make or take a first clip, then frame after frame; the store has the queue after every window of them.

    Source: FIFO-Diffusion, see `sampling.fifo`.
    """
    frames, model, length = job.shape[2], job.guided_model(), job.settings.window.length
    count = min(length, frames) if job.clip is None else len(job.clip)
    first_steps = 0 if job.clip is not None else _calls(job, model)
    rounds = queue_length(model, length) + frames - count if count < frames else 0
    work = Work(job, first_steps + rounds)
    clip = work.once("beginning", partial(_beginning, job, model, count, work), first_steps)
    yield clip
    following = continue_video(model, clip, length, job.noise(1), on_round=lambda: work.add(1))
    for first in range(count, frames, length):
        last = min(first + length, frames)
        stored = job.store.get(f"from-{first}")
        if stored is None:
            part = []
            for _ in range(first, last):
                part.append(next(following))
                job.show(partial(torch.cat, part, dim=2))
            stored = {"latents": torch.cat(part, dim=2)}
            job.store.put(f"from-{first}", **stored, **following.state())
        else:
            following.restore(stored)
            work.reach(work.total - (frames - last))
        yield stored["latents"]


def _calls(job: FilmJob, model: GuidedModel) -> int:
    """Calls of the model for a first clip."""
    resample = 0 if job.image is None else job.settings.resample
    return calls_between(len(model.timesteps), known_clean=job.model.family.frame_timesteps, resample=resample)


def _beginning(job: FilmJob, model: GuidedModel, frames: int, work: Work) -> Tensor:
    """The latents of the clip that the film continues, or of a new one of so many frames."""
    if job.clip is not None:
        return codec_of(job.model).encode_video(job.clip[None]).cpu()
    x = torch.randn((*job.shape[:2], frames, *job.shape[3:]), generator=job.noise(0))
    held = job.held(x, range(frames))

    def predict(x: Tensor, timesteps: Tensor, i: int, work: Work) -> Tensor:
        prediction = model.all_frames(x, timesteps)
        work.add(1)
        return prediction

    *_, (_, latents) = _steps(job, model, held, x, 0, predict, work)
    return torch.where(held.mask, held.clean, latents)


def half_of(window: int) -> int:
    """Frames of half a window of the queue, whose windows have an even length."""
    return max(1, window // 2)


def queue_length(model: GuidedModel, window: int) -> int:
    """Frames in the queue of `continue_video`, and rounds before its first frame: the steps, rounded to half windows."""
    half = half_of(window)
    return max(1, round(len(model.timesteps) / half)) * half


def continue_video(
    model: GuidedModel,
    clip: Tensor,
    window: int,
    generator: torch.Generator,
    on_round: Callable[[], None] = lambda: None,
) -> Fifo:
    """Iterate over the frames that follow a clip, without end.

    Args:
        model: the model.
        clip: (1, 4, t, h, w) clean latents on the CPU.
        window: frames that the model sees at once; an odd number is rounded down.
        generator: of the noise (a CPU one).
        on_round: called after every call of the model.

    Returns:
        An iterator over (1, 4, 1, h, w), the next finished frame.
    """

    def predict(x: Tensor, timesteps: Tensor, numbers: Tensor) -> Tensor:
        prediction = model(x.to(model.device), timesteps, numbers).cpu()
        on_round()
        return prediction

    return Fifo(
        predict,
        clip,
        model.schedule.timesteps(queue_length(model, window)),
        model.schedule,
        window=2 * half_of(window),
        generator=generator,
        end=CLEAN,
    )


MAKE: dict[str, Callable[[FilmJob], Iterator[Tensor]]] = {
    "windows": by_windows,
    "free-noise": by_free_noise,
    "coarse-to-fine": by_coarse_to_fine,
    "endless": by_endless,
    CLIP_AFTER_CLIP: by_clip_after_clip,
}
