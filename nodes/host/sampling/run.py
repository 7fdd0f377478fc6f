"""One sampling run: schedule, noise, guidance and previews."""

from __future__ import annotations

from dataclasses import dataclass
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
from ..models import regions
from ..models.model import VideoModel, video_model
from ..models.model_sampling import final_scale, is_scaled, signal_at, tables_at
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


@dataclass(frozen=True)
class Settings:
    """How a latent is denoised, by the names of the node's inputs."""

    seed: int
    steps: int
    cfg: float
    sampler_name: str
    scheduler: str
    denoise: float = 1.0
    """The share of the schedule that is done, 0..1: its end."""
    start_at_step: int = 0
    end_at_step: int = 1000
    add_noise: bool = True
    """Whether the latent gets the seed's noise first."""
    return_with_leftover_noise: bool = False
    """Whether the noise that is left at `end_at_step` stays."""
    cfg_rescale: float = 0.0
    """0..1, see `with_cfg_rescale`."""
    eta: float = 1.0
    """0..1, fresh noise in every step of the sampler "ddim (eta)"."""

    @property
    def does_nothing(self) -> bool:
        """Whether no step is left to do."""
        return self.denoise <= 0.0 or self.start_at_step >= min(self.end_at_step, self.steps)


def sample(
    model: Any, positive: list, negative: list, latent: dict[str, Any], settings: Settings, callback: Any = None
) -> dict[str, Any]:
    """Denoise a LATENT with one of the host's samplers or ours.

    callback: of the host's samplers; one with a progress bar of its own where None.

    Returns:
        A LATENT whose samples have the shape of the given ones.

    Raises:
        T2VError: for a model, latent or conditioning that does not belong here, and where the result is not finite.
    """
    samples = checked_latent(video_model(model), latent["samples"])
    if settings.does_nothing:
        return {**latent, "samples": samples}
    if settings.cfg_rescale > 0.0:
        model = with_cfg_rescale(model, settings.cfg_rescale)
    mask = regions.noise_mask_per_clip(latent.get("noise_mask"), samples.shape)
    sigmas, to_the_end = _run_sigmas(model, settings, masked=mask is not None)
    result = comfy.sample.sample_custom(
        model,
        _noise(model, latent, samples, mask, sigmas, settings),
        settings.cfg,
        sampler_object(settings),
        sigmas,
        positive,
        negative,
        samples,
        noise_mask=mask,
        callback=callback or preview.callback(model, len(sigmas) - 1),
        seed=settings.seed,
    )
    if to_the_end:
        result = result * final_scale(model.get_model_object("model_sampling"), float(sigmas[-2]), float(sigmas[-1]))
    return {**latent, "samples": result}


def _run_sigmas(model: Any, settings: Settings, *, masked: bool) -> tuple[Tensor, bool]:
    """The sigmas of the steps to do, (n + 1,), and whether they end as the model's schedule ends."""
    sigmas = schedule(model, settings.sampler_name, settings.scheduler, settings.steps, settings.denoise)
    ends_early = settings.end_at_step < len(sigmas) - 1
    sigmas = sigmas[: settings.end_at_step + 1].clone()
    keeps_noise = settings.return_with_leftover_noise
    if (ends_early or masked) and not keeps_noise:
        sigmas[-1] = 0.0  # what a mask keeps must come back clean, too
    return sigmas[settings.start_at_step :], not (ends_early or masked or keeps_noise)


def _noise(
    model: Any, latent: dict[str, Any], samples: Tensor, mask: Tensor | None, sigmas: Tensor, settings: Settings
) -> Tensor:
    """The noise that the host adds to the samples, like them."""
    if not settings.add_noise:
        return torch.zeros_like(samples)
    noise = comfy.sample.prepare_noise(samples, settings.seed, latent.get("batch_index"))
    made = _made(mask, samples)  # what a mask keeps has the noise of the step, and may hold something
    from_nothing = settings.denoise >= 1.0 and settings.start_at_step == 0 and not (samples * made).any()
    if from_nothing and settings.scheduler in OWN_SCHEDULERS:
        factor = pure_noise_factor(model.get_model_object("model_sampling"), float(sigmas[0]))
        noise = noise * torch.where(made.to(noise) > 0, factor, 1.0)  # noise is on the processor
    return noise


def _made(mask: Tensor | None, samples: Tensor) -> Tensor:
    """What a noise mask with one picture per frame leaves to be made, (b, 1, t, h, w); 1 for all without such a mask."""
    if mask is None or samples.ndim != 5 or mask.numel() != samples[:, :1].numel():
        return samples.new_ones(())
    return mask.reshape(samples[:, :1].shape).to(samples)


def sampler_object(settings: Settings) -> Any:
    """Return the host's SAMPLER of a run."""
    name = settings.sampler_name
    if name not in OWN_SAMPLERS:
        return comfy.samplers.sampler_object(name)
    return comfy.samplers.KSAMPLER(OWN_SAMPLERS[name], {"eta": settings.eta} if name == "ddim (eta)" else {})


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
    # T2V-Turbo's LoRA may have put another in its place; the host's image models have none, which stands for Stable Diffusion's
    config = model.get_model_object("scheduler") if hasattr(model.model, "scheduler") else {}
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
        abar = tables_at(model_sampling, sigma.reshape(-1))[0] ** 2
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
