"""Long videos: a story of any length, frames handed out as they are finished.

Four methods, which trade memory, time and how far frames look: see `METHODS`. The mathematics is in `sampling`; here it
meets a pipeline, a story and a folder in which unfinished work is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from .errors import T2VError
from .pipeline import Pipeline, Progress
from .sampling.ddim import alphas_cumprod, ddim_step, timesteps_of
from .sampling.fifo import fifo
from .sampling.guidance import classifier_free
from .sampling.infill import coarse_to_fine, sample_between
from .sampling.noise import reschedule
from .sampling.story import Story, Told, parse_story, same_frames
from .sampling.windows import Windows, window_weights, windows

log = logging.getLogger(__name__)

METHODS = {
    "windows": "overlapping windows, averaged at every step; each frame sees its neighbours",
    "free-noise": "one pass over all frames with windowed temporal attention and repeated noise; short films",
    "coarse-to-fine": "sparse key frames first, then what lies between; the fastest by far for long films",
    "endless": "a queue of frames, each one noise level behind the next; constant memory, any length",
}


@dataclass(frozen=True)
class Settings:
    """How a film is made."""

    steps: int
    guidance_scale: float
    seed: int
    window: Windows
    batch: int = 8
    """Windows or segments that go through the UNet together."""
    resample: int = 2
    """Rounds per step in which known and new frames come to agree, for models without noise levels per frame."""


class Film:
    """A story, a pipeline and a method: iterate over `frames()`.

    Args:
        pipeline: from `t2v_models.load_pipeline`.
        story: one text, or scenes as `t2v_models.sampling.story` describes.
        negative_prompt: what to keep away from all the time, besides the story's own negative lines.
        frames, width, height, fps, steps, guidance_scale: the model's defaults where None.
        method: a key of `METHODS`.
        window: length, overlap, fusion and loop of the windows; the model's own length where None.
        seed: decides everything.
        resume: a folder for what is finished so far; a film that was stopped goes on from there and comes out the same,
            bit for bit.
        progress: called with (done, total) units of work; it may raise to stop.

    Raises:
        T2VError: for a story or sizes that no film can be made of.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        story: str,
        negative_prompt: str = "",
        *,
        frames: int | None = None,
        width: int | None = None,
        height: int | None = None,
        fps: float | None = None,
        steps: int | None = None,
        guidance_scale: float | None = None,
        method: str = "windows",
        window: Windows | None = None,
        seed: int = 0,
        resume: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        if method not in METHODS:
            raise T2VError(f"Method {method!r} is not known: choose one of {', '.join(METHODS)}.")
        if negative_prompt:
            story = f"{story}\nnegative: {negative_prompt}"
        choose = pipeline.defaults
        self.pipeline, self.method, self.progress = pipeline, method, progress
        self.fps = choose.fps if fps is None else fps
        self.shape = pipeline.checked_shape(1, frames, width, height)
        self.story: Story = parse_story(story, self.shape[2], self.fps)
        self.settings = Settings(
            steps=choose.steps if steps is None else steps,
            guidance_scale=choose.guidance_scale if guidance_scale is None else guidance_scale,
            seed=seed,
            window=(window or Windows(choose.frames, choose.frames // 2)).over(self.shape[2]),
        )
        self.store = Store(resume, {"story": story, "method": method, "shape": self.shape, "settings": self.settings})

    def latents(self) -> Iterator[Tensor]:
        """(1, 4, n, h/8, w/8) finished parts, in order."""
        with torch.no_grad():
            told = (self.story.told(self.pipeline.encode_text, negative=negative) for negative in (False, True))
            yield from _MAKE[self.method](Denoiser(self.pipeline, *told, self.settings, self.fps), self)

    def frames(self) -> Iterator[Tensor]:
        """(n, h, w, 3), 0..1, the frames in order as soon as they are finished."""
        for part in self.latents():
            yield from self.pipeline.decode(part[0])
        self.store.clear()

    def tick(self, done: int, total: int) -> None:
        """Report progress."""
        if self.progress is not None:
            self.progress(done, total)

    def noise(self, *key: int) -> torch.Generator:
        """The generator of one part's noise: the same whatever was made before it."""
        generator = torch.Generator()
        value = self.settings.seed
        for number in key:
            value = (value * 1_000_003 + number + 1) % (2**63 - 1)
        return generator.manual_seed(value)


class Store:
    """A folder of finished tensors, so that a stopped film can go on; without a folder it keeps nothing."""

    def __init__(self, folder: Path | None, about: dict[str, Any]) -> None:
        self.folder = folder
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        text, note = repr(sorted(about.items())), folder / "film.txt"
        if note.exists() and note.read_text(encoding="utf-8") != text:
            raise T2VError(
                f"{folder} holds an unfinished film of other settings: finish that one, or name another folder."
            )
        note.write_text(text, encoding="utf-8")

    def get(self, name: str) -> dict[str, Tensor] | None:
        """What was kept under that name."""
        path = None if self.folder is None else self.folder / f"{name}.safetensors"
        return load_file(path) if path is not None and path.exists() else None

    def put(self, name: str, **tensors: Tensor) -> None:
        """Keep tensors; a stop at any moment leaves the old ones or the new ones."""
        if self.folder is not None:
            temporary = self.folder / f"{name}.part"
            save_file({key: value.contiguous() for key, value in tensors.items()}, temporary)
            temporary.replace(self.folder / f"{name}.safetensors")

    def once(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """What was kept under that name, or made now and kept."""
        kept = self.get(name)
        if kept is not None:
            return kept["latents"]
        latents = make()
        self.put(name, latents=latents)
        return latents

    def clear(self) -> None:
        """The film is whole: remove what was kept."""
        if self.folder is not None:
            for path in self.folder.glob("*.safetensors"):
                path.unlink()
            (self.folder / "film.txt").unlink(missing_ok=True)


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


def _windows(denoise: Denoiser, film: Film) -> Iterator[Tensor]:
    """Every step denoises all windows and averages them; the state after each step can be taken up again."""
    settings, frames = film.settings, film.shape[2]
    kept = film.store.get("state")
    x = torch.randn(film.shape, generator=film.noise(0)) if kept is None else kept["latents"]
    first = 0 if kept is None else int(kept["step"])
    window = settings.window
    for i in range(first, len(denoise.timesteps)):
        shift = i * max(1, (window.length - window.overlap) // 2) if window.looped else 0
        spans = windows(frames, window.length, window.overlap, looped=window.looped, shift=shift)
        weights = window_weights(len(spans[0]), window.fusion, window.overlap)
        norm = torch.zeros(frames)
        for span in spans:
            norm[span] += weights
        share, after = denoise.share(i)
        total = torch.zeros_like(x)
        for start in range(0, len(spans), settings.batch):
            group = torch.tensor(spans[start : start + settings.batch])  # (b, length)
            clips = x[0][:, group].transpose(0, 1).to(denoise.device)
            levels = denoise.timesteps[i].expand(group.shape)
            for span, part in zip(group, denoise(clips, levels, group).cpu(), strict=True):
                total[0].index_add_(1, span, part * (weights / norm[span])[:, None, None])
        x = ddim_step(x, total, share, after, denoise.kind)
        film.store.put("state", latents=x, step=torch.tensor(i + 1))
        film.tick(i + 1, len(denoise.timesteps))
    yield from x.split(window.length, dim=2)


def _free_noise(denoise: Denoiser, film: Film) -> Iterator[Tensor]:
    """One pass over all frames, temporal attention in windows, noise that repeats itself in another order."""
    frames, window = film.shape[2], film.settings.window
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


def _coarse_to_fine(denoise: Denoiser, film: Film) -> Iterator[Tensor]:
    """Key frames, then segments between fixed ends; every finished segment is kept."""
    settings, frames = film.settings, film.shape[2]
    length = settings.window.length
    clean_levels = denoise.pipeline.family.frame_levels
    done = 0

    def sample(ends: Tensor | None, numbers: Sequence[Sequence[int]], generator: torch.Generator) -> Tensor:
        count = len(numbers[0])
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
            clean_levels=clean_levels,
            resample=settings.resample if ends is not None else 0,
            generator=generator,
        )

    def keys(numbers: Sequence[int]) -> Tensor:
        return film.store.once("keys", lambda: sample(None, [numbers], film.noise(0)))

    def fill(ends: Tensor, numbers: Sequence[Sequence[int]]) -> Tensor:
        first, stride = numbers[0][0], numbers[0][1] - numbers[0][0]
        name = f"stride-{stride}-from-{first}"
        return film.store.once(name, lambda: sample(ends, numbers, film.noise(stride, first)))

    for part in coarse_to_fine(frames, length, keys, fill, batch=settings.batch):
        done += part.shape[2]
        yield part
        film.tick(done, frames)


def _endless(denoise: Denoiser, film: Film) -> Iterator[Tensor]:
    """A first clip, then one frame after the other."""
    settings, frames = film.settings, film.shape[2]
    length = settings.window.length
    shape = (*film.shape[:2], min(length, frames), *film.shape[3:])
    generator = film.noise(0)
    x, numbers = torch.randn(shape, generator=generator), torch.arange(shape[2])[None]
    for i in range(len(denoise.timesteps)):
        share, after = denoise.share(i)
        levels = denoise.timesteps[i].expand(1, shape[2])
        x = ddim_step(x, denoise(x.to(denoise.device), levels, numbers).cpu(), share, after, denoise.kind)
    yield x
    film.tick(shape[2], frames)
    following = continue_clip(denoise, x, length, film.noise(1))
    for done in range(shape[2] + 1, frames + 1):
        yield next(following)
        film.tick(done, frames)


def continue_clip(denoise: Denoiser, clip: Tensor, window: int, generator: torch.Generator) -> Iterator[Tensor]:
    """The frames that follow a clip, (1, 4, t, h, w) clean latents, one by one, without end."""
    half = max(1, window // 2)
    steps = max(1, round(len(denoise.timesteps) / half)) * half

    def predict(x: Tensor, levels: Tensor, numbers: Tensor) -> Tensor:
        return denoise(x.to(denoise.device), levels, numbers).cpu()

    return fifo(
        predict,
        clip,
        timesteps_of(denoise.pipeline.scheduler_config, steps),
        denoise.abar,
        denoise.kind,
        window=2 * half,
        generator=generator,
        final_abar=1.0,
    )


_MAKE: dict[str, Callable[[Denoiser, Film], Iterator[Tensor]]] = {
    "windows": _windows,
    "free-noise": _free_noise,
    "coarse-to-fine": _coarse_to_fine,
    "endless": _endless,
}
