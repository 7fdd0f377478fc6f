"""TI2V-Zero's "repeat and slide" in the host, in the place of the sampler that a node has chosen."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import comfy.model_management
import comfy.patcher_extension
import comfy.samplers
import torch
from torch import Tensor

from ....t2v_models.errors import T2VError
from ....t2v_models.sampling.repeat_and_slide import calls_to_slide, check_known, repeat_and_slide
from ....t2v_models.sampling.schedule import CLEAN
from ..models.model import video_model
from ..models.model_sampling import family_schedule, is_scaled

KEY = "t2v_repeat_and_slide"

Refresh = Callable[[Tensor], Tensor]
"""``refresh(latents)``: latents (b, c, t, h, w) as the host hands them from node to node -> like them."""


@dataclass(frozen=True)
class Frames:
    """The frames of the film that a call of the model computes, as the host's context windows say it to the UNet."""

    index_list: list[int]
    dim: int = 2


@dataclass(frozen=True)
class RepeatAndSlide:
    """How a clip is slid over frames, see `t2v_models.sampling.repeat_and_slide`."""

    known: int
    resample: int
    refresh: Refresh | None

    def outer_sample(
        self, executor: Any, noise: Tensor, latent: Tensor, sampler: Any, sigmas: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Wrap a sampling run of the host: its sigmas are gone through once for every new frame.

        Raises:
            T2VError: for a latent that does not hold the first frame, or has its frames as a batch.
        """
        if noise.ndim != 5 or not latent[:, :, 0].any():
            raise T2VError("Repeat and slide begins with a picture: wire the LATENT of T2VImageToVideo, as it is.")
        patcher = executor.class_obj.model_patcher
        sliding = comfy.samplers.KSAMPLER(Sliding(self, patcher, latent[:, :, :1]).sample)
        result = executor(noise, latent, sliding, sigmas, *args, **kwargs)
        return torch.cat([latent[:, :, :1].to(result), result[:, :, 1:]], dim=2)


class Sliding:
    """One run: a sampler of k-diffusion's form, which makes the frames after the first one."""

    def __init__(self, settings: RepeatAndSlide, patcher: Any, first: Tensor) -> None:
        self.settings, self.patcher, self.inner, self.first = settings, patcher, patcher.model, first
        self.model_sampling = patcher.get_model_object("model_sampling")
        schedule = family_schedule(patcher.get_model_object("scheduler"), self.inner.family)
        schedule = schedule if is_scaled(self.model_sampling) else schedule.without_scale()
        # a denoised sample gives a velocity at every noise level, but no noise where the signal is 0
        self.schedule = replace(schedule, prediction_type="v_prediction")
        self.calls = 0

    def sample(
        self,
        model: Any,
        x: Tensor,
        sigmas: Tensor,
        extra_args: dict[str, Any] | None = None,
        callback: Any = None,
        disable: bool | None = None,
    ) -> Tensor:
        """x: (b, c, t, h, w), of which the shape counts -> a sample at the last sigma."""
        extra, frames, steps = {**(extra_args or {}), "denoise_mask": None}, x.shape[2], len(sigmas) - 1
        timesteps = self.model_sampling.timestep(sigmas[:-1]).round().long()
        how = {"window": self.inner.defaults.frames, "known": self.settings.known, "resample": self.settings.resample}
        check_known(how["known"], how["window"])
        clips = math.ceil((frames - 1) / (how["window"] - how["known"]))
        total = calls_to_slide(frames, steps, **how)

        def predict(clip: Tensor, times: Tensor) -> Tensor:
            comfy.model_management.throw_exception_if_processing_interrupted()
            start = self.calls * clips // total * (how["window"] - how["known"]) + 1 - how["known"]
            numbers = [min(max(0, number), frames - 1) for number in range(start, start + how["window"])]
            sigma = self.model_sampling.sigma(times[:1, 0])
            seen = clip / self._gain(sigma, clip)
            denoised = model(seen, sigma.expand(len(clip)), **_with_window(extra, numbers))
            if callback is not None:
                at = self.calls * steps // total
                callback({"x": seen, "i": at, "sigma": sigma, "sigma_hat": sigma, "denoised": denoised})
            self.calls += 1
            return self.schedule.velocity(clip, denoised, times)

        made = repeat_and_slide(
            predict,
            self.inner.process_latent_in(self.first).to(x).expand(len(x), -1, -1, -1, -1),
            frames,
            timesteps,
            self.schedule,
            **how,
            generator=torch.Generator().manual_seed((extra.get("seed") or 0) % 2**63),
            refresh=partial(self._refreshed, self.settings.refresh) if self.settings.refresh else None,
            end=CLEAN if sigmas[-1] == 0 else int(self.model_sampling.timestep(sigmas[-1:]).round()),
        )
        return made if sigmas[-1] == 0 else made / self._gain(sigmas[-1:], made)

    def _gain(self, sigma: Tensor, x: Tensor) -> Tensor:
        """What the host multiplies a sample with before the network sees it."""
        gain: Tensor = self.model_sampling.calculate_input(sigma, torch.ones_like(x[:1, :1, :1, :1, :1]))
        return gain

    def _refreshed(self, refresh: Refresh, latents: Tensor) -> Tensor:
        """New frames as the VAE brings them back; the UNet returns to the device after it."""
        new = self.inner.process_latent_in(refresh(self.inner.process_latent_out(latents)))
        memory = self.inner.memory_required(
            [len(latents), latents.shape[1], self.inner.defaults.frames, *latents.shape[3:]]
        )
        comfy.model_management.load_models_gpu([self.patcher], memory_required=memory)
        return new.to(latents)


def _with_window(extra_args: dict[str, Any], numbers: list[int]) -> dict[str, Any]:
    """The arguments of a call of the guided model for the frames with these numbers."""
    options = extra_args["model_options"]
    transformer = {**options.get("transformer_options", {}), "context_window": Frames(numbers)}
    return {**extra_args, "model_options": {**options, "transformer_options": transformer}}


def with_repeat_and_slide(model: Any, *, known: int, resample: int, refresh: Refresh | None = None) -> Any:
    """Return a clone of the MODEL whose samplers make the frames after the first, clip after clip.

    The chosen sampler gives its place to DDIM; its sigmas stay. Arguments: see `RepeatAndSlide`.

    Raises:
        T2VError: for a number of known frames that leaves none to sample.
    """
    check_known(known, video_model(model).defaults.frames)
    model = model.clone()
    stage = comfy.patcher_extension.WrappersMP.OUTER_SAMPLE
    model.add_wrapper_with_key(stage, KEY, RepeatAndSlide(known, resample, refresh).outer_sample)
    return model
