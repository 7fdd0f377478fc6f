"""Frames of a clip that stay as they are, in every sampler node of the host, by the noise mask of the LATENT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import comfy.patcher_extension
import comfy.samplers
import torch
from torch import Tensor

from ....t2v_models.errors import T2VError
from ..models.model import video_model

KEY = "t2v_held_frames"
"""Key of our wrappers, and of the run's clean latents in its transformer options."""

_STAGE = comfy.patcher_extension.WrappersMP


@dataclass(frozen=True)
class HeldFrames:
    """What a MODEL needs so that a sampler keeps some frames of a clip; the noise mask of the LATENT does the rest."""

    known: Tensor
    """(t,) bool, true for these frames."""
    clean: bool
    """Whether the model is shown them without noise, at timestep 0, as one that was trained with a timestep per frame."""
    resample: int
    """How often each step is repeated from fresh noise, so that new frames agree with noisy known ones."""

    def register_wrappers(self, patcher: Any) -> None:
        """Register on a ModelPatcher; its clones have them, too."""
        patcher.add_wrapper_with_key(_STAGE.OUTER_SAMPLE, KEY, self.outer_sample)
        if self.clean:
            patcher.add_wrapper_with_key(_STAGE.SAMPLER_SAMPLE, KEY, sampler_sample)
            patcher.add_wrapper_with_key(_STAGE.PREDICT_NOISE, KEY, self.predict_noise)
            patcher.add_wrapper_with_key(_STAGE.DIFFUSION_MODEL, KEY, self.diffusion_model)

    def outer_sample(
        self, executor: Any, noise: Tensor, latent: Tensor, sampler: Any, sigmas: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Wrap a sampling run of the host: repeat its steps, and bring back the known frames bit for bit.

        Raises:
            T2VError: for a latent without a noise mask, or of another length.
        """
        mask, frames = (
            args[0] if args else kwargs.get("denoise_mask"),
            len(latent) if latent.ndim == 4 else latent.shape[2],
        )
        if mask is None or frames != len(self.known):
            raise T2VError(
                f"This model holds {int(self.known.sum())} of {len(self.known)} frames and the latent has {frames}, "
                f"{'with' if mask is not None else 'without'} a noise mask: wire the LATENT of the node that gave the "
                "model to the sampler, too."
            )
        sampler = resampled(sampler, self.resample) if self.resample else sampler
        result = executor(noise, latent, sampler, sigmas, *args, **kwargs)
        return torch.where(self._over(result), latent.to(result), result)

    def predict_noise(
        self, executor: Any, x: Tensor, sigma: Tensor, model_options: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Wrap one evaluation of the guided model: it is shown the known frames without noise."""
        model_sampling = executor.class_obj.model_patcher.get_model_object("model_sampling")
        factor = model_sampling.calculate_input(sigma, torch.ones_like(x))  # what the host multiplies x with
        clean = model_options["transformer_options"][KEY] / factor
        return executor(torch.where(self._over(x), clean, x), sigma, model_options, *args, **kwargs)

    def diffusion_model(self, executor: Any, x: Tensor, timesteps: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Wrap a call of the UNet: the timestep of known frames is 0. x: (b, c, t, h, w) or ((b t), c, h, w)."""
        options = next(each for each in args if isinstance(each, dict) and KEY in each)
        known = self.known.to(timesteps.device)
        window = list(getattr(options.get("context_window"), "index_list", ()))
        known = known[window] if window else known
        if x.ndim == 5:
            timesteps = timesteps.view(len(x), -1).expand(-1, x.shape[2])
        else:
            known = known.repeat(len(x) // len(known))
        return executor(x, timesteps.masked_fill(known, 0), *args, **kwargs)

    def _over(self, x: Tensor) -> Tensor:
        """`known` as a mask that broadcasts over (b, c, t, h, w) or (t, c, h, w)."""
        return self.known.to(x.device).view(-1, *[1] * (2 if x.ndim == 5 else 3))


def sampler_sample(
    executor: Any,
    guider: Any,
    sigmas: Tensor,
    extra_args: dict,
    callback: Any,
    noise: Tensor,
    latent: Tensor,
    *args: Any,
) -> Tensor:
    """Wrap a run of a SAMPLER: the model's options get its latents, as the model takes them."""
    extra_args["model_options"].setdefault("transformer_options", {})[KEY] = latent
    return executor(guider, sigmas, extra_args, callback, noise, latent, *args)


def with_held_frames(model: Any, known: Tensor, *, resample: int = 0) -> Any:
    """Return a clone of the MODEL with which every sampler keeps some frames of a `held_latent`.

    A model that was trained with a timestep for every frame is shown these frames without noise, at timestep 0. Other
    models see them with the noise of the step, as the host's noise masks do it.

    Args:
        model: a MODEL of a video model.
        known: (t,) bool.
        resample: see `HeldFrames`; a model that is shown clean frames needs none. Source: Lugmayr et al. 2022, RePaint
            (arXiv:2201.09865).
    """
    clean = video_model(model).family.frame_timesteps
    model = model.clone()
    HeldFrames(known, clean, 0 if clean else resample).register_wrappers(model)
    return model


def held_latent(clip: Tensor, known: Tensor) -> dict[str, Tensor]:
    """Return a LATENT of a clip, (b, c, t, h, w), whose known frames, (t,) bool, stay and whose others are made."""
    frame = known.to(clip).view(-1, 1, 1, 1)
    mask = (1 - frame).expand(-1, 1, *clip.shape[3:]).repeat(len(clip), 1, 1, 1)
    return {"samples": clip * frame.view(1, 1, -1, 1, 1), "noise_mask": mask}


def resampled(sampler: Any, times: int) -> Any:
    """Return a SAMPLER of the host that takes each step of the given one alone, and repeats it from fresh noise.

    Samplers that use earlier steps (dpmpp_2m, lms …) become those of first order.

    Raises:
        T2VError: for a SAMPLER that is none of k-diffusion's form.
    """
    if not isinstance(sampler, comfy.samplers.KSAMPLER):
        raise T2VError("This sampler cannot repeat single steps: choose euler or ddim, or set resample to 0.")
    step = sampler.sampler_function

    def sample(
        model: Any,
        x: Tensor,
        sigmas: Tensor,
        extra_args: dict[str, Any] | None = None,
        callback: Any = None,
        disable: bool | None = None,
        **options: Any,
    ) -> Tensor:
        generator = torch.Generator().manual_seed(((extra_args or {}).get("seed") or 0) % 2**63)
        torch.randn(x.shape, generator=generator)  # the noise that the run began with
        for i in range(len(sigmas) - 1):
            rounds = 1 if i == len(sigmas) - 2 else 1 + times
            for turn in range(1, rounds + 1):
                seen = _at_step(callback, i) if turn == rounds else None
                following = step(
                    model, x, sigmas[i : i + 2], extra_args=extra_args, callback=seen, disable=True, **options
                )
                if turn < rounds:
                    more = (sigmas[i] ** 2 - sigmas[i + 1] ** 2).sqrt()
                    following = following + more * torch.randn(x.shape, generator=generator).to(x)
                x = following
        return x

    return comfy.samplers.KSAMPLER(sample, sampler.extra_options, sampler.inpaint_options)


def _at_step(callback: Any, i: int) -> Any:
    """The callback of a sampler that takes step i alone."""
    return None if callback is None else lambda found: callback({**found, "i": i})
