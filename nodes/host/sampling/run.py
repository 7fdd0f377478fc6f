"""One sampling run: schedule, noise, guidance and previews."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.model_sampling
import comfy.sample
import comfy.samplers
import torch
from torch import Tensor

from ....t2v_models.errors import T2VError
from ....t2v_models.sampling.guidance import rescale
from ....t2v_models.sampling.unipc import sample_unipc
from ..models.model import VideoModel, video_model
from ..models.model_sampling import final_scale, is_scaled, levels, signal_at
from . import preview
from .ddim import sample_ddim_eta
from .schedules import OWN_SCHEDULERS, SOLVERS

OWN_SAMPLERS = {"ddim (eta)": sample_ddim_eta, "unipc (diffusers)": sample_unipc}
"""Samplers that the host does not have."""


def sampler_names() -> list[str]:
    """The host's samplers, then ours."""
    return [*comfy.samplers.KSampler.SAMPLERS, *OWN_SAMPLERS]


def scheduler_names() -> list[str]:
    """Our schedules first, then the host's."""
    return [*OWN_SCHEDULERS, *comfy.samplers.KSampler.SCHEDULERS]


def sample(
    model: Any,
    positive: list,
    negative: list,
    latent: dict[str, Any],
    *,
    seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    denoise: float = 1.0,
    start_step: int = 0,
    end_step: int = 1000,
    add_noise: bool = True,
    leftover_noise: bool = False,
    cfg_rescale: float = 0.0,
    eta: float = 1.0,
) -> dict[str, Any]:
    """Denoise a latent. Returns a LATENT of the same shape.

    Raises T2VError for a model, latent or conditioning that does not belong here, and where the result is not finite.
    """
    inner = video_model(model)
    samples = checked_latent(inner, latent["samples"])
    if denoise <= 0.0 or start_step >= min(end_step, steps):
        return {**latent, "samples": samples}
    if cfg_rescale > 0.0:
        model = with_cfg_rescale(model, cfg_rescale)
    mask = _per_clip(latent.get("noise_mask"), samples)
    sigmas = schedule(model, sampler_name, scheduler, steps, denoise)
    ends_early = end_step < len(sigmas) - 1
    sigmas = sigmas[: end_step + 1].clone()
    if (ends_early or mask is not None) and not leftover_noise:
        sigmas[-1] = 0.0  # what a mask keeps must come back clean, too
    sigmas = sigmas[start_step:]
    noise = torch.zeros_like(samples)
    if add_noise:
        noise = comfy.sample.prepare_noise(samples, seed, latent.get("batch_index"))
        if denoise >= 1.0 and start_step == 0 and scheduler in OWN_SCHEDULERS and not samples.any():
            noise = noise * pure_noise_factor(model.get_model_object("model_sampling"), float(sigmas[0]))
    result = comfy.sample.sample_custom(
        model,
        noise,
        cfg,
        _sampler(sampler_name, eta),
        sigmas,
        positive,
        negative,
        samples,
        noise_mask=mask,
        callback=preview.callback(model, len(sigmas) - 1),
        seed=seed,
    )
    if not (ends_early or mask is not None or leftover_noise):
        result = result * final_scale(model.get_model_object("model_sampling"), float(sigmas[-2]), float(sigmas[-1]))
    return {**latent, "samples": result}


def _sampler(name: str, eta: float) -> Any:
    """The host's SAMPLER of that name; eta: for "ddim (eta)"."""
    if name not in OWN_SAMPLERS:
        return comfy.samplers.sampler_object(name)
    return comfy.samplers.KSAMPLER(OWN_SAMPLERS[name], {"eta": eta} if name == "ddim (eta)" else {})


def _per_clip(mask: Tensor | None, samples: Tensor) -> Tensor | None:
    """A noise mask with one picture per frame of several clips, (b t, 1, h, w), as (b, 1, t, h, w); others unchanged.

    RepeatLatentBatch makes such a mask of one clip's masks, and the host takes it for one clip of so many frames.
    """
    if mask is None or samples.ndim != 5 or mask.ndim != 4:
        return mask
    clips, frames = samples.shape[0], samples.shape[2]
    return mask.unflatten(0, (clips, frames)).movedim(1, 2) if clips > 1 and len(mask) == clips * frames else mask


def schedule(model: Any, sampler_name: str, scheduler: str, steps: int, denoise: float) -> Tensor:
    """Sigmas from noisy to clean, (steps + 1,). With less denoise they are the end of a longer schedule, as in the host.

    Raises:
        T2VError: for more steps than the schedule or the sampler can take.
    """
    if scheduler not in OWN_SCHEDULERS:
        sampler = comfy.samplers.KSampler(
            model, steps, model.load_device, sampler_name, scheduler, denoise, model.model_options
        )
        return sampler.sigmas.cpu()
    total = steps if denoise > 0.9999 else int(steps / denoise)
    if total > 1000:
        raise T2VError(f"{steps} steps at denoise {denoise} are part of {total}, and there are 1000: take fewer steps.")
    model_sampling = model.get_model_object("model_sampling")
    config = model.get_model_object("scheduler")  # T2V-Turbo's LoRA may have put another in its place
    sigmas = OWN_SCHEDULERS[scheduler](model_sampling, total, sampler_name, config)
    if sampler_name.startswith(SOLVERS) and not (sigmas.diff() < 0).all():
        raise T2VError(f"{sampler_name} cannot take {total} steps: ask for fewer, 20 to 50 are usual.")
    return sigmas[-(steps + 1) :]


def pure_noise_factor(model_sampling: Any, sigma: float) -> float:
    """The factor for the host's noise with which the network's first input is noise of variance one.

    The host adds sigma * noise to the empty latent and multiplies the sum by the signal. The originals start the network
    on noise of variance one, also where their first timestep is not the schedule's last one.
    """
    if sigma >= float(model_sampling.sigma_max) * (1 - 1e-5):
        return 1.0  # the host does it itself
    return 1.0 / (sigma * signal_at(model_sampling, sigma))


def with_cfg_rescale(model: Any, amount: float) -> Any:
    """A clone of the MODEL whose guided prediction is brought back to the contrast of the unguided one.

    Source: Lin et al. 2023 (arXiv:2305.08891), eq. 15 and 16. The deviation is taken over a whole clip.
    """
    model_sampling = model.get_model_object("model_sampling")

    def post_cfg(args: dict[str, Any]) -> Tensor:
        denoised = args["denoised"], args["cond_denoised"]
        return rescaled(model_sampling, args["input"], args["sigma"], *denoised, amount)

    model = model.clone()
    model.set_model_sampler_post_cfg_function(post_cfg)
    return model


def rescaled(model_sampling: Any, x: Tensor, sigma: Tensor, guided: Tensor, cond: Tensor, amount: float) -> Tensor:
    """`rescale` of the network's output, given and returned as denoised samples. x: (b, …) at sigma (b,), all like x."""
    zero = _without_output(model_sampling, x, sigma)
    # a denoised sample less this is the network's output, but for a factor
    return zero + rescale(guided - zero, cond - zero, amount)


def _without_output(model_sampling: Any, x: Tensor, sigma: Tensor) -> Tensor:
    """The denoised sample if the network put out zeros. x: (b, …) at sigma (b,) -> like x."""
    if not isinstance(model_sampling, comfy.model_sampling.V_PREDICTION):
        return x
    if is_scaled(model_sampling):
        abar = levels(model_sampling, sigma.reshape(-1))[0] ** 2
        return x * abar.to(x).view(-1, *[1] * (x.ndim - 1))
    return x / (sigma.view(-1, *[1] * (x.ndim - 1)) ** 2 + 1.0)


def checked_latent(inner: VideoModel, samples: Tensor) -> Tensor:
    """The latent samples, unchanged. Raises T2VError where they cannot be this model's."""
    channels = inner.latent_format.latent_channels
    if getattr(samples, "is_nested", False) or samples.ndim not in (4, 5):
        raise T2VError("The latent is no image or video latent: use T2VEmptyLatent or T2VVAEEncodeFrames.")
    if samples.shape[1] != channels:
        raise T2VError(
            f"The latent has {samples.shape[1]} channels and this model wants {channels}: use T2VEmptyLatent, or "
            f"encode "
            "with the VAE of T2VModelLoader."
        )
    if 0 in samples.shape:
        raise T2VError(f"The latent of shape {tuple(samples.shape)} is empty: it must hold at least one frame.")
    return samples
