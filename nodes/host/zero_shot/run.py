"""Text2Video-Zero with an image MODEL of the host: three runs over one table of sigmas. Source: arXiv:2303.13439.

The first frame is denoised alone from t = T to t1, and on to t0. There its latents are copied to all other frames and moved
by a motion field, and noise brings those back to t1. From t1 on, all frames are denoised together, and look at the first.
"""

from __future__ import annotations

import copy
import inspect
import logging
from dataclasses import dataclass, field
from typing import Any

import comfy.model_management
import comfy.model_sampling
import comfy.samplers
import comfy.utils
import torch
from torch import Tensor

from ....t2v_models.errors import T2VError
from ....t2v_models.films.store import Store
from ....t2v_models.foreign import quoted
from ....t2v_models.zero_shot import noise
from ....t2v_models.zero_shot.anchors import ANCHORS
from ....t2v_models.zero_shot.chunks import chunks
from ....t2v_models.zero_shot.motion import HOW, Motion, sources, warp
from ....t2v_models.zero_shot.smoothing import background
from .. import unfinished
from ..memory import check_bytes
from ..models.checks import computed_in
from ..models.model_sampling import final_scale
from ..sampling import preview
from ..sampling.run import Settings, sampler_object, schedule
from . import cross_frame, hints, resume, smoothing
from .frame_conditionings import FrameConditionings
from .image_model import image_model
from .same_noise import usual_noise

log = logging.getLogger(__name__)

DIFFUSERS = "diffusers"
"""The scheduler with which a run follows diffusers' pipeline in every number."""

_COPIES = 4
"""Of a video's latents: its noise, a chunk of all frames before and after a step, and the LATENT."""


@dataclass(frozen=True)
class ZeroShot:
    """What a video from an image model is asked to be, besides the sampler's settings."""

    motion: Motion = field(default_factory=Motion)
    t0: float = 0.88
    """Where frames are copied and moved, as a fraction of the schedule's timesteps, 0 (clean) to 1 (noise)."""
    t1: float = 0.94
    """Up to where they get noise again, as a fraction."""
    warp: str = "nearest"
    anchor: str = ANCHORS[0]
    smoothing: int = 0
    """Steps in which alternate frames become the mean of their neighbours, see `smoothing.with_interleaved`."""
    chunk: int = 0
    """Frames that go through the model together; 0: all."""
    by_chunk: bool = False
    """Whether a story's text is that of a chunk's first new frame in all of the chunk."""
    resume: bool = False
    """Whether finished chunks are stored, and a stopped video continues with them."""


def asked(
    *,
    motion_x: float,
    motion_y: float,
    path: str,
    t0: float,
    t1: float,
    anchor: str = ANCHORS[0],
    warp: str = HOW[0],
    curve: str = "",
    smoothing: int = 0,
    chunk: int = 0,
    story: str = "per frame",
    resume: bool = False,
) -> ZeroShot:
    """Return what a video is asked to be, by the names of the node's inputs. T2VError for a curve that is no curve."""
    motion = Motion(path, motion_x, motion_y, points(curve))
    return ZeroShot(motion, t0, t1, warp, anchor, smoothing, chunk, story == "per chunk", resume)


def points(curve: str) -> tuple[tuple[float, float], ...]:
    """Read points such as "0,0 40,10 80,0". T2VError where they are no pairs of numbers."""
    found = []
    for pair in curve.replace(";", " ").split():
        try:
            x, y = (float(part) for part in pair.split(","))
        except ValueError:
            raise T2VError(
                f"curve has {quoted(pair)} among its points: pairs such as 0,0 40,10 80,0 are wanted."
            ) from None
        found.append((x, y))
    return tuple(found)


def make(
    model: Any,
    positive: list,
    negative: list,
    latent: dict[str, Any],
    settings: Settings,
    asked: ZeroShot,
    mask: Tensor | None = None,
) -> dict[str, Tensor]:
    """Make a video with an image model.

    Args:
        model, positive, negative: of the host.
        latent: its size is the video's, (frames, c, h, w) or (1, c, frames, h, w).
        settings: of the sampler.
        asked: of the video.
        mask: (h, w), (1, h, w) or (frames, h, w), 1 where the foreground is; the background is smoothed.

    Returns:
        A LATENT of the given one's shape.

    Raises:
        T2VError: for models, latents, masks and settings that do not belong here, and for results that are not finite.
    """
    _check_model(model)
    samples = _frames(model, latent)
    shown = f"A video of {len(samples)} frames of {8 * samples.shape[3]}x{8 * samples.shape[2]}"
    check_bytes(_COPIES * 4 * samples.numel(), shown, "make it shorter or smaller")
    job = Job(model, positive, negative, tuple(samples.shape), settings, asked, mask)
    store = job.store(positive, negative)
    store.begin()
    video = torch.empty(job.shape, dtype=torch.float32)
    parts = chunks(len(video), asked.chunk)
    for number, part in enumerate(parts):
        comfy.model_management.throw_exception_if_processing_interrupted()
        made = store.once(f"chunk {number:05}", lambda part=part, number=number: job.chunk(part, number))
        new = part if number == 0 else part[1:]
        video[new[0] : new[-1] + 1] = made[-len(new) :]
    if store.folder is not None:
        unfinished.finish(store.folder)
    video = model.model.process_latent_out(video).to(comfy.model_management.intermediate_device())
    return {"samples": video.movedim(0, 1)[None] if latent["samples"].ndim == 5 else video}


class Job:
    """One video to make; states are (frames, c, h, w), in float32, on the CPU, as x_0 + sigma e."""

    def __init__(
        self,
        model: Any,
        positive: list,
        negative: list,
        shape: tuple[int, ...],
        settings: Settings,
        asked: ZeroShot,
        mask: Tensor | None,
    ) -> None:
        self.model, self.settings, self.asked, self.shape = model, settings, asked, shape
        self.frames = shape[0]
        self.model_sampling = model.get_model_object("model_sampling")
        self.conditionings = FrameConditionings(positive, negative, self.frames, by_chunk=asked.by_chunk)
        self.sigmas = schedule(model, settings.sampler_name, settings.scheduler, settings.steps, 1.0)
        self.i1, self.i0 = noise.split(self.sigmas, asked.t0, asked.t1, self._timestep) if self.frames > 1 else (0, 0)
        self.last_steps = len(self.sigmas) - 1 - self.i1
        """Steps that all frames have together."""
        self.mask = smoothing.foreground(mask, shape) if mask is not None else None
        self.together = self._patched() if self.frames > 1 else model
        parts = chunks(self.frames, asked.chunk)
        _check_room(model, (len(parts[0]), *shape[1:]))
        self.bar = comfy.utils.ProgressBar(self.i0 + len(parts) * self.last_steps)
        self._start: tuple[Tensor, Tensor] | None = None
        each = {"positive": positive, "negative": negative}
        hints.announce({name: [extra for _, extra in texts] for name, texts in each.items()}, self.frames, self.frames)

    def store(self, positive: list, negative: list) -> Store:
        """Return the folder of this video's finished chunks, which stores nothing where the video cannot be resumed."""
        about = (self.shape, self.settings, self.asked, self.sigmas.tolist(), self.mask)
        return resume.store(self.model, [positive, negative], about) if self.asked.resume else Store(None, {})

    def chunk(self, numbers: list[int], number: int) -> Tensor:
        """Make the frames of a chunk, (n, c, h, w), clean.

        Args:
            numbers: of the frames, the first frame's before all others.
            number: of the chunk.
        """
        first, moved = self.start()
        x = first
        if len(numbers) > 1:
            x = torch.cat([first, self._others(moved, numbers[1:])])
            if self.mask is not None:
                x = self._smoothed(x, numbers)
        made = self._denoise(x, numbers, self.i1, None, self.i0 + number * self.last_steps)
        end = float(self.sigmas[-1])
        return made * final_scale(self.model_sampling, float(self.sigmas[-2]), end)

    def start(self) -> tuple[Tensor, Tensor]:
        """Return the first frame's state at t1 and at t0, each (1, c, h, w), made when it is first asked for."""
        if self._start is None:
            x = noise.frame_noise(self.settings.seed, [0], self.shape[1:]) * self._first_scale()
            at_t1 = self._denoise(x, [0], 0, self.i1, 0)
            self._start = at_t1, self._denoise(at_t1, [0], self.i1, self.i0, self.i1)
        return self._start

    def _first_scale(self) -> float:
        """The factor of the first noise: as the host's KSampler has it, or, with diffusers' schedule, as diffusers."""
        sigma = float(self.sigmas[0])
        at_most = sigma >= float(self.model_sampling.sigma_max) * (1 - 1e-5)
        return (1 + sigma**2) ** 0.5 if at_most or self.settings.scheduler == DIFFUSERS else sigma

    def _others(self, at_t0: Tensor, numbers: list[int]) -> Tensor:
        """Copy the first frame's state at t0 to other frames, move them, and bring them to t1 with each one's own noise."""
        moved = warp(at_t0, self._sources(numbers), self.asked.warp)
        own = noise.frame_noise(self.settings.seed, numbers, self.shape[1:])
        sigma_0, sigma_1 = float(self.sigmas[self.i0]), float(self.sigmas[self.i1])
        if self.settings.scheduler != DIFFUSERS:
            return noise.forward(moved, sigma_0, sigma_1, own)
        below = (self._timestep(self.sigmas[[self.i0, self.i1]]) - 1).clamp(min=0).cpu()
        early = self.model_sampling.sigmas.cpu()[below].tolist()
        return noise.forward_one_early(moved, (sigma_0, sigma_1), early, own)

    def _timestep(self, sigmas: Tensor) -> Tensor:
        """The nearest entries of the model's table of 1000 timesteps. sigmas: (n,) -> (n,) int64."""
        table = self.model_sampling.sigmas.cpu().log()
        return (table[None] - sigmas.cpu().log()[:, None]).abs().argmin(1)

    def _sources(self, numbers: list[int]) -> Tensor:
        return sources(self.asked.motion, numbers, self.frames, *self.shape[2:])

    def _smoothed(self, x: Tensor, numbers: list[int]) -> Tensor:
        """The states of a chunk at t1, whose background is blended with the first frame's, moved by the field."""
        masks = self.mask if len(self.mask) == 1 else self.mask[numbers]
        return background(x, masks, self._sources(numbers), how=self.asked.warp)

    def _denoise(self, x: Tensor, numbers: list[int], start: int, end: int | None, done: int) -> Tensor:
        """Denoise states between two steps. numbers: of the frames; done: steps that the progress bar has behind it."""
        sigmas = self.sigmas[start : None if end is None else end + 1]
        if len(sigmas) < 2:
            return x
        inner, model = self.model.model, self.together if len(numbers) > 1 else self.model
        result = comfy.samplers.sample(
            model,
            torch.zeros_like(x),
            *self.conditionings.of(numbers),
            self.settings.cfg,
            model.load_device,
            self._sampler(x, sigmas, (self.settings.seed + 1 + start) % 2**63),
            sigmas,
            model_options=model.model_options,
            latent_image=inner.process_latent_out(x),
            callback=preview.callback(model, len(sigmas) - 1, self.bar, done),
            seed=self.settings.seed,
        )
        result = inner.process_latent_in(result.float().cpu())
        check_finite(inner, result)
        return result

    def _patched(self) -> Any:
        """The MODEL for several frames together."""
        model = cross_frame.patch(self.model, self.asked.anchor, seed=self.settings.seed)
        if self.asked.smoothing:
            smoothing.with_interleaved(model, self.sigmas, self.i1, self.asked.smoothing)
        return model

    def _sampler(self, x: Tensor, sigmas: Tensor, seed: int) -> Any:
        """The chosen sampler. Fresh noise of its steps is one for all frames: frames do not shimmer, and chunks agree."""
        sampler = sampler_object(self.settings)
        function = getattr(sampler, "sampler_function", None)
        if function is None or "noise_sampler" not in inspect.signature(function).parameters:
            return sampler
        device = self.model.load_device
        draw = usual_noise(function, x[:1].to(device), sigmas.to(device), seed)
        shared = copy.copy(sampler)
        shared.extra_options = {
            **sampler.extra_options,
            "noise_sampler": lambda sigma, following: draw(sigma, following).expand(len(x), -1, -1, -1).clone(),
        }
        return shared


def _check_model(model: Any) -> None:
    """Raise T2VError for a MODEL that this is not for."""
    image_model(model)
    if isinstance(model.get_model_object("model_sampling"), comfy.model_sampling.CONST):
        raise T2VError(
            "The model is a flow model, whose latents fade into noise in another way: wire a Stable Diffusion 1, 2 or XL "
            "checkpoint that predicts noise or velocity."
        )
    if model.model_options.get("context_handler") is not None:
        raise T2VError(cross_frame.NO_WINDOWS)


def _frames(model: Any, latent: dict[str, Any]) -> Tensor:
    """The samples of a LATENT as a batch of frames, (frames, c, h, w); T2VError where they cannot be this model's."""
    samples, channels = latent["samples"], model.model.latent_format.latent_channels
    if getattr(samples, "is_nested", False) or samples.ndim not in (4, 5) or 0 in samples.shape:
        raise T2VError("The latent holds no frames: wire Empty Latent Image, whose batch_size is the number of frames.")
    if samples.shape[1] != channels:
        raise T2VError(
            f"The latent has {samples.shape[1]} channels and this model wants {channels}: wire Empty Latent Image, whose "
            "batch_size is the number of frames."
        )
    if samples.ndim == 5 and len(samples) > 1:
        raise T2VError(f"The latent holds {len(samples)} clips: one is wanted, LatentFromBatch takes one out.")
    if latent.get("noise_mask") is not None:
        raise T2VError(
            "The latent has a noise mask, and T2VZeroShot makes whole frames: wire a latent without one; the input mask of "
            "the node is for the foreground."
        )
    if samples.any():
        log.info("the latent's pictures are not used: T2VZeroShot takes the size and the number of frames from it")
    return samples[0].movedim(1, 0) if samples.ndim == 5 else samples


def _check_room(model: Any, shape: tuple[int, ...]) -> None:
    """Raise T2VError where frames of this shape together need more than twice the memory that the device has in all."""
    frames, size = shape[0], f"{8 * shape[3]}x{8 * shape[2]}"
    needed = model.model.memory_required(list(shape))
    there = comfy.model_management.get_total_memory(model.load_device)
    if needed > 2 * there:
        raise T2VError(
            f"{frames} frames of {size} at once need about {needed / 2**30:.0f} GB and this device has "
            f"{there / 2**30:.0f} GB: set chunk to 8 or fewer, or make the frames smaller."
        )


def check_finite(inner: Any, samples: Tensor) -> None:
    """Raise T2VError where frames hold NaN or infinity, which would become a black video."""
    broken = [number for number, frame in enumerate(samples) if not frame.isfinite().all()]
    if broken:
        end = computed_in(inner, *(f"start ComfyUI with {to}" for to in ("--fp32-unet", "--bf16-unet or --fp32-unet")))
        raise T2VError(f"{len(broken)} of {len(samples)} frames are not finite, {end}")
