"""Windows, FreeNoise and FreeInit on the host's own seams, so that every sampler node can use them."""

from __future__ import annotations

import math
from typing import Any

import comfy.context_windows
import comfy.model_management
import comfy.patcher_extension
import comfy.sample
import torch
from torch import Tensor

from ...t2v_models.errors import T2VError
from ...t2v_models.sampling.noise import low_pass, mix_frequencies, reschedule
from ...t2v_models.sampling.windows import Windows, window_weights, windows
from .model import video_model
from .unet import FREE_NOISE

WINDOWS = "t2v_windows"
FREE_INIT = "t2v_free_init"
REPEATED_NOISE = "t2v_free_noise"
OUTER_SAMPLE = comfy.patcher_extension.WrappersMP.OUTER_SAMPLE


class WindowHandler(comfy.context_windows.IndexListContextHandler):
    """Our windows and weights in the host's context handler, which cuts masks and conditionings to each window."""

    def __init__(self, settings: Windows) -> None:
        schedule = comfy.context_windows.ContextSchedule(WINDOWS, self._spans)
        fuse = comfy.context_windows.ContextFuseMethod(WINDOWS, self._weights)
        super().__init__(schedule, fuse, settings.length, settings.overlap, closed_loop=settings.looped, dim=2)
        self.settings = settings
        self.causal_window_fix = False  # an extra frame before each window is for causal models

    def should_use_context(self, model: Any, conds: Any, x_in: Tensor, *args: Any, **kwargs: Any) -> bool:
        if x_in.ndim != 5:
            raise T2VError(
                f"A latent of shape {tuple(x_in.shape)} has its frames as a batch: windows want the 5 dimensions of "
                "T2VEmptyLatent (T2VLatentLayout converts)."
            )
        return self.settings.looped or len(self.settings.over(x_in.shape[2]).spans()) > 1

    def set_step(self, timestep: Tensor, model_options: dict[str, Any]) -> None:
        """Between two steps, where some samplers look, the last one's windows hold on."""
        sigmas = model_options["transformer_options"]["sample_sigmas"]
        known = torch.isclose(sigmas, timestep[0].to(sigmas), rtol=1e-4).nonzero()
        if len(known):
            self._step = int(known[0])

    def execute(
        self,
        calc_cond_batch: Any,
        model: Any,
        conds: Any,
        x_in: Tensor,
        timestep: Tensor,
        model_options: dict[str, Any],
    ) -> Any:
        """The host would cut the noise level to the window's frames, where it has one for each of several clips."""

        def whole(model: Any, conds: Any, x: Tensor, _: Tensor, options: dict[str, Any]) -> Any:
            return calc_cond_batch(model, conds, x, timestep, options)

        return super().execute(whole, model, conds, x_in, timestep[:1], model_options)

    def get_resized_cond(self, cond_in: list | None, x_in: Tensor, window: Any, device: Any = None) -> list | None:
        """The host looks for frames where a latent has them; a mask (1, t or 1, h, w) has them one place before."""
        resized = super().get_resized_cond(cond_in, x_in, window, device)
        for given, cut in zip(cond_in or (), resized or (), strict=True):
            mask = given.get("mask")
            if isinstance(mask, Tensor):
                one_per_frame = mask.ndim == 4 and mask.shape[1] == x_in.shape[2]
                cut["mask"] = (mask[:, window.index_list] if one_per_frame else mask).to(device or mask.device)
        return resized

    def _spans(self, frames: int, handler: Any, model_options: dict[str, Any]) -> list[list[int]]:
        return self.settings.over(frames).spans(self._step)

    def _weights(self, length: int, **_: Any) -> list[float]:
        return window_weights(length, self.settings.fusion, self.settings.overlap).tolist()


def with_windows(model: Any, settings: Windows) -> Any:
    """A clone of the MODEL that denoises long clips window by window."""
    video_model(model)
    windows(settings.length + 1, settings.length, settings.overlap)  # refuses what cannot cover, before sampling
    model = model.clone()
    model.model_options["context_handler"] = WindowHandler(settings)
    comfy.context_windows.create_prepare_sampling_wrapper(model)
    return model


def with_free_noise(model: Any, settings: Windows) -> Any:
    """A clone that denoises a long clip in one pass: windowed temporal attention, repeated and shuffled noise."""
    video_model(model)
    windows(settings.length + 1, settings.length, settings.overlap)

    def outer_sample(executor: Any, noise: Tensor, latent: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        noise = _as_before(_repeated(_clips(noise), settings, _seed(args, kwargs)), noise)
        return executor(noise, latent, *args, **kwargs)

    model = model.clone()
    model.add_wrapper_with_key(OUTER_SAMPLE, REPEATED_NOISE, outer_sample)
    wrappers = model.wrappers[OUTER_SAMPLE]
    if FREE_INIT in wrappers:  # within FreeInit's rounds it would undo what they keep of the round before
        names = [name for name in wrappers if name != REPEATED_NOISE]
        names.insert(names.index(FREE_INIT), REPEATED_NOISE)
        model.wrappers[OUTER_SAMPLE] = {name: wrappers[name] for name in names}
    model.model_options.setdefault("transformer_options", {})[FREE_NOISE] = settings
    return model


def with_free_init(model: Any, iterations: int, kind: str, spatial: float, temporal: float, order: int) -> Any:
    """A clone whose sampling is done again and again, each time on noise that keeps the last result's slow changes.

    Source: Wu et al. 2024, FreeInit (arXiv:2312.07537).
    """
    video_model(model)

    def outer_sample(
        executor: Any, noise: Tensor, latent: Tensor, sampler: Any, sigmas: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        first, seed = noise, _seed(args, kwargs)
        if not noise.any():
            raise T2VError("T2VFreeInit renews noise, and the sampler adds none: switch add_noise on.")
        known = inner.process_latent_in(latent) if latent.any() else latent
        patcher = executor.class_obj.model_patcher
        repeated = patcher.model_options.get("transformer_options", {}).get(FREE_NOISE)
        sigma, most = float(sigmas[0]), float(patcher.get_model_object("model_sampling").sigma_max)
        # what the host multiplies noise with, before it adds the latent
        gain = math.sqrt(1 + sigma**2) if sigma >= most * (1 - 1e-5) else sigma
        for i in range(iterations):
            result = executor(noise, latent, sampler, sigmas, *args, **kwargs)
            if i + 1 == iterations:
                return result
            comfy.model_management.throw_exception_if_processing_interrupted()
            clean = inner.process_latent_in(result).to(first)  # the noise waits on the host's device, not the model's
            diffused = _clips((clean - known.to(first) + sigma * first) / gain)
            fresh = _clips(comfy.sample.prepare_noise(result, (seed + i + 1) % 2**64).to(first))
            if repeated is not None:
                fresh = _repeated(fresh, repeated, seed + i + 1)
            passing = low_pass(tuple(fresh.shape[2:]), kind, spatial=spatial, temporal=temporal, order=order)
            noise = _as_before(mix_frequencies(diffused, fresh, passing), first)
        return result

    model = model.clone()
    inner = model.model
    model.add_wrapper_with_key(OUTER_SAMPLE, FREE_INIT, outer_sample)
    return model


def _seed(args: tuple, kwargs: dict[str, Any]) -> int:
    """The last argument of what the host wraps, by name or not; nodes may leave it out."""
    return kwargs.get("seed", args[-1] if args and isinstance(args[-1], int) else 0) or 0


def _repeated(clips: Tensor, settings: Windows, seed: int) -> Tensor:
    """FreeNoise's noise of what is longer than a window. clips: (b, c, t, h, w), made from the seed."""
    if clips.shape[2] <= settings.length:
        return clips
    generator = torch.Generator().manual_seed(seed % 2**63)
    torch.randn(clips.shape, generator=generator)  # the library's goes on where the noise ended
    return reschedule(clips, settings.length, settings.length - settings.overlap, generator)


def _clips(noise: Tensor) -> Tensor:
    """(b, c, t, h, w), or (t, c, h, w) with the frames as the batch -> (b, c, t, h, w)."""
    return noise if noise.ndim == 5 else noise.movedim(0, 1)[None]


def _as_before(clips: Tensor, noise: Tensor) -> Tensor:
    """Clips in the layout of the noise that they were made of."""
    return clips if noise.ndim == 5 else clips[0].movedim(1, 0)
