"""The four ways to make a film: each yields a film's latents in order, as soon as they are finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .pipeline import Pipeline
from .sampling.ddim import alphas_cumprod, ddim_step, timesteps_of
from .sampling.fifo import Fifo
from .sampling.guidance import classifier_free
from .sampling.infill import coarse_to_fine, sample_between, strides
from .sampling.noise import reschedule
from .sampling.story import Told, same_frames

if TYPE_CHECKING:
    from .film import Film, Settings


KEYS_A_SCENE = 4
"""Key frames that the shortest scene of a story gets, as far as one window holds them: fewer show no way to go."""

NEAR = 5
"""Gaps of so many frames are filled at the usual pace: fast is thrice the usual pace, and ten times slow."""


class Denoiser:
    """A pipeline's guided prediction for any frames of a story, each at a noise level of its own."""

    def __init__(self, pipeline: Pipeline, positive: Told, negative: Told, settings: Settings, fps: float) -> None:
        self.pipeline, self.settings, self.fps = pipeline, settings, fps
        self.positive, self.negative = positive, negative
        self.abar = alphas_cumprod(pipeline.scheduler_config)
        self.kind: str = pipeline.scheduler_config["prediction_type"]
        self.device = pipeline.device
        self.timesteps: Tensor = timesteps_of(pipeline.scheduler_config, settings.steps)

    @property
    def guided(self) -> bool:
        """Whether a negative prompt is asked, too."""
        return self.settings.guidance_scale != 1 and not self.pipeline.unet.config.guidance_dim

    def __call__(self, x: Tensor, levels: Tensor, numbers: Tensor, options: dict[str, Any] | None = None) -> Tensor:
        """x: (b, 4, t, h, w), levels and numbers: (b, t) -> the prediction, like x."""
        unet, b = self.pipeline.unet, x.shape[0]
        context = self.positive.at(numbers)
        if self.guided:
            context = torch.cat(same_frames(self.negative.at(numbers), context, x.shape[2]))
        if context.ndim == 3 and torch.equal(levels, levels[:, :1].expand_as(levels)):
            levels = levels[:, 0]
        if self.pipeline.input_scale is not None:
            scale = self.pipeline.input_scale[levels].to(x)
            x = x * (scale[:, None, None, None, None] if levels.ndim == 1 else scale[:, None, :, None, None])
        conditions = self.pipeline.conditions(b, self.fps, self.settings.guidance_scale)
        prediction = unet(x.to(unet.dtype), levels.to(self.device), context, options=options, **conditions).float()
        if not self.guided:
            return prediction
        uncond, cond = prediction.chunk(2)
        return classifier_free(cond, uncond, self.settings.guidance_scale)

    def share(self, i: int) -> tuple[Tensor, Tensor]:
        """The signal shares at step i and after it; at the end everything is signal."""
        after = self.abar[self.timesteps[i + 1]] if i + 1 < len(self.timesteps) else torch.tensor(1.0)
        return self.abar[self.timesteps[i]].float(), after.float()


def _windows(film: Film) -> Iterator[Tensor]:
    """Every step denoises all windows and averages them; the state after each step can be taken up again."""
    settings, frames, denoise = film.settings, film.shape[2], film.denoiser()
    kept = film.store.get("state")
    x = torch.randn(film.shape, generator=film.noise(0)) if kept is None else kept["latents"]
    first = 0 if kept is None else int(kept["step"])
    window = settings.window.over(frames)
    for i in range(first, len(denoise.timesteps)):
        spans = window.spans(i)
        norm = torch.zeros(frames)
        for span in spans:
            norm[span] += window.weights
        share, after = denoise.share(i)
        total = torch.zeros_like(x)
        for start in range(0, len(spans), settings.batch):
            group = torch.tensor(spans[start : start + settings.batch])  # (b, length)
            clips = x[0][:, group].transpose(0, 1).to(denoise.device)
            levels = denoise.timesteps[i].expand(group.shape)
            for span, part in zip(group, denoise(clips, levels, group).cpu(), strict=True):
                total[0].index_add_(1, span, part * (window.weights / norm[span])[:, None, None])
        x = ddim_step(x, total, share, after, denoise.kind)
        film.store.put("state", latents=x, step=torch.tensor(i + 1))
        film.tick(i + 1, len(denoise.timesteps))
    yield from x.split(window.length, dim=2)


def _free_noise(film: Film) -> Iterator[Tensor]:
    """One pass over all frames, temporal attention in windows, noise that repeats itself in another order."""
    frames, window, denoise = film.shape[2], film.settings.window, film.denoiser()
    stride = max(1, window.length - window.overlap)
    windowed = window.temporal()
    options = {"temporal_windows": windowed} if windowed else None
    numbers = torch.arange(frames)[None]
    generator = film.noise(0)
    kept = film.store.get("state")
    x = torch.randn(film.shape, generator=generator)
    x = reschedule(x, window.length, stride, generator) if kept is None else kept["latents"]
    for i in range(0 if kept is None else int(kept["step"]), len(denoise.timesteps)):
        share, after = denoise.share(i)
        levels = denoise.timesteps[i].expand(1, frames)
        prediction = denoise(x.to(denoise.device), levels, numbers, options).cpu()
        x = ddim_step(x, prediction, share, after, denoise.kind)
        film.store.put("state", latents=x, step=torch.tensor(i + 1))
        film.tick(i + 1, len(denoise.timesteps))
    yield from x.split(window.length, dim=2)


def _coarse_to_fine(film: Film) -> Iterator[Tensor]:
    """Key frames, then segments between fixed ends; every finished segment is kept.

    Key frames lie far apart, so between them things move fast; in a clip that fills a gap they move slowly. The model
    is told so: by a word for the pace, where it understands one, and by the frame rate, where it knows that.
    """
    settings, frames = film.settings, film.shape[2]
    family = film.pipeline.family
    shortest = min(scene.end - scene.start for scene in film.story.scenes)
    levels = strides(frames, settings.window.length, max(1, shortest / KEYS_A_SCENE))
    paces = _paces(levels, *family.pace) if family.pace else [""] * len(levels)
    denoisers = {stride: film.denoiser(pace, stride) for stride, pace in zip(levels, paces, strict=True)}
    done = 0

    def sample(ends: Tensor | None, numbers: Sequence[Sequence[int]], generator: torch.Generator) -> Tensor:
        count, denoise = len(numbers[0]), denoisers[levels[0] if ends is None else numbers[0][1] - numbers[0][0]]
        noise = torch.randn((len(numbers), film.shape[1], count, *film.shape[3:]), generator=generator)
        clean, known = torch.zeros_like(noise), torch.zeros(count, dtype=torch.bool)
        if ends is not None:
            clean[:, :, [0, -1]] = ends
            known[[0, -1]] = True
        at = torch.tensor(numbers)
        return sample_between(
            lambda x, levels: denoise(x.to(denoise.device), levels, at).cpu(),
            noise,
            known,
            clean,
            denoise.timesteps,
            denoise.abar,
            denoise.kind,
            clean_levels=family.frame_levels,
            resample=settings.resample if ends is not None else 0,
            generator=generator,
        )

    def keys(numbers: Sequence[int]) -> Tensor:
        return film.store.once("keys", lambda: sample(None, [numbers], film.noise(0)))

    def fill(ends: Tensor, numbers: Sequence[Sequence[int]]) -> Tensor:
        first, stride = numbers[0][0], numbers[0][1] - numbers[0][0]
        name = f"stride-{stride}-from-{first}"
        return film.store.once(name, lambda: sample(ends, numbers, film.noise(stride, first)))

    for part in coarse_to_fine(frames, levels, keys, fill, batch=settings.batch):
        done += part.shape[2]
        yield part
        film.tick(done, frames)


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

    def beginning() -> Tensor:
        if film.clip is not None:
            return film.pipeline.encode_video(film.clip[None])
        x = torch.randn((*film.shape[:2], count, *film.shape[3:]), generator=film.noise(0))
        for i in range(len(denoise.timesteps)):
            share, after = denoise.share(i)
            levels = denoise.timesteps[i].expand(1, count)
            prediction = denoise(x.to(denoise.device), levels, torch.arange(count)[None]).cpu()
            x = ddim_step(x, prediction, share, after, denoise.kind)
        return x

    clip = film.store.once("beginning", beginning)
    yield clip
    film.tick(count, frames)
    following = continue_clip(denoise, clip, length, film.noise(1))
    for first in range(count, frames, length):
        last = min(first + length, frames)
        kept = film.store.get(f"from-{first}")
        if kept is None:
            part = []
            for number in range(first, last):
                part.append(next(following))
                film.tick(number + 1, frames)
            kept = {"latents": torch.cat(part, dim=2)}
            film.store.put(f"from-{first}", **kept, **following.state())
        else:
            following.restore(kept)
        yield kept["latents"]


def continue_clip(denoise: Denoiser, clip: Tensor, window: int, generator: torch.Generator) -> Fifo:
    """The frames that follow a clip, (1, 4, t, h, w) clean latents, one by one, without end."""
    half = max(1, window // 2)
    steps = max(1, round(len(denoise.timesteps) / half)) * half
    return Fifo(
        lambda x, levels, numbers: denoise(x.to(denoise.device), levels, numbers).cpu(),
        clip,
        timesteps_of(denoise.pipeline.scheduler_config, steps),
        denoise.abar,
        denoise.kind,
        window=2 * half,
        generator=generator,
        final_abar=1.0,
    )


MAKE: dict[str, Callable[[Film], Iterator[Tensor]]] = {
    "windows": _windows,
    "free-noise": _free_noise,
    "coarse-to-fine": _coarse_to_fine,
    "endless": _endless,
}
