"""A model's `NoiseSchedule` in the host's terms: x = x_0 + sigma e, with sigma = noise / signal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.model_sampling
import torch
from torch import Tensor

from ....t2v_models.families import Family
from ....t2v_models.sampling.schedule import NoiseSchedule

LEAST_ALPHAS_CUMPROD = 4.8973451890853435e-08
"""Core's stand-in for the last alphas_cumprod where the terminal SNR is zero: the host's sigmas must be finite."""


class Discrete(comfy.model_sampling.ModelSamplingDiscrete):
    """The host's discrete schedule, made from a `NoiseSchedule`. Its tables are no buffers.

    A host with dynamic VRAM restores buffers by their names when it goes from one clone of a model to the next: a
    schedule that replaces another, for a LoRA, would get the other's tables.
    """

    tables = ("sigmas", "log_sigmas")

    def __init__(self, schedule: NoiseSchedule, model_config: Any = None) -> None:
        self.schedule = schedule  # the host's constructor asks for the tables
        super().__init__(model_config)

    def _register_schedule(self, *_: Any, **settings: Any) -> None:
        """Called by the host's constructor, which would multiply betas up."""
        abar = self.schedule.alphas_cumprod
        self.num_timesteps, self.zsnr = len(abar), bool(abar[-1] == 0)
        self.linear_start, self.linear_end = settings.get("linear_start"), settings.get("linear_end")
        abar = torch.where(abar == 0, LEAST_ALPHAS_CUMPROD, abar)
        self.set_sigmas(((1 - abar) / abar) ** 0.5 / self.schedule.scale)

    def set_sigmas(self, sigmas: Tensor) -> None:
        self.sigmas, self.log_sigmas = sigmas.float(), sigmas.log().float()

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Do nothing: only a host calls this, with the tables of another schedule."""

    def _apply(self, function: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> Discrete:
        """Move the tables to the device that the module's buffers move to."""
        for name in self.tables:
            setattr(self, name, function(getattr(self, name)))
        return super()._apply(function, *args, **kwargs)

    def tables_at(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """sqrt(alphas_cumprod), noise and scale at any sigmas > 0, between the table's entries by log sigma.

        sigma: (n,) -> three tensors (n,), float64, on the CPU. alphas_cumprod is 0 at the last sigma of a schedule
        whose terminal SNR is zero.
        """
        table, at = exact(self.sigmas).log(), exact(sigma).log()
        high = torch.searchsorted(table, at).clamp(1, len(table) - 1)
        weight = ((at - table[high - 1]) / (table[high] - table[high - 1])).clamp(0, 1)
        noise, root, scale = (
            torch.lerp(values[high - 1], values[high], weight)
            for values in (self.schedule.noise, self.schedule.alphas_cumprod.sqrt(), self.schedule.scale)
        )
        return root, noise, scale


class _Scaled:
    """How the network sees latents whose signal is scaled, and how the host scales pure noise for it."""

    tables_at: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]

    def factors(self, sigma: Tensor, ndim: int) -> tuple[Tensor, ...]:
        """What the network's input is multiplied with, sqrt(alphas_cumprod), noise and scale.

        sigma: (), (n,) -> tensors of sigma's type that broadcast over latents of so many dimensions.
        """
        values = sigma.reshape(-1)
        root, noise, scale = self.tables_at(values)
        parts = (noise / exact(values), root, noise, scale)
        return tuple(comfy.model_sampling.reshape_sigma(part.to(sigma), ndim) for part in parts)

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        return noise * self.factors(sigma, noise.ndim)[0]

    def noise_scaling(self, sigma: Tensor, noise: Tensor, latent_image: Tensor, max_denoise: bool = False) -> Tensor:
        factor = comfy.model_sampling.reshape_sigma(sigma, noise.ndim)
        if max_denoise:
            factor = 1.0 / self.factors(sigma, noise.ndim)[0]
        return noise * factor + latent_image


class ScaledEPS(_Scaled, comfy.model_sampling.EPS):
    """Noise prediction over a scaled schedule: x_0 = x - sigma e, as without the scale."""


class ScaledV(_Scaled, comfy.model_sampling.V_PREDICTION):
    """Velocity prediction, which belongs to the schedule without the scale: s x_0 = sqrt(abar) x_t - sqrt(1 - abar) v."""

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        factor, root, noise, scale = self.factors(sigma, model_output.ndim)
        return (root * factor * model_input - noise * model_output) / scale


def make_model_sampling(schedule: NoiseSchedule, model_config: Any = None) -> Discrete:
    """The host's ``model_sampling`` object for a schedule."""
    velocity = schedule.prediction_type == "v_prediction"
    if schedule.is_scaled:
        parametrisation = ScaledV if velocity else ScaledEPS
    else:
        parametrisation = comfy.model_sampling.V_PREDICTION if velocity else comfy.model_sampling.EPS

    class ModelSampling(Discrete, parametrisation):
        pass

    return ModelSampling(schedule, model_config)


def family_schedule(scheduler: dict[str, Any], family: Family) -> NoiseSchedule:
    """The schedule of a model of that family, by diffusers' scheduler_config.json."""
    scale, keeps = family.scale_base, family.keeps_last_scale
    return NoiseSchedule.from_config(scheduler, scale_base=scale, keeps_last_scale=keeps)


def is_scaled(model_sampling: Any) -> bool:
    """Whether the signal is scaled. It is not where a LoRA or a node has replaced the model's own schedule."""
    return isinstance(model_sampling, Discrete) and model_sampling.schedule.is_scaled


def tables_at(model_sampling: Any, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`Discrete.tables_at` for the schedule of any model whose latents are x_0 + sigma e."""
    if isinstance(model_sampling, Discrete) and (model_sampling.schedule.is_scaled or model_sampling.zsnr):
        return model_sampling.tables_at(sigma)
    root = (1.0 + exact(sigma) ** 2) ** -0.5
    return root, root * exact(sigma), torch.ones_like(root)


def signal_at(model_sampling: Any, sigma: float) -> float:
    """The factor of x_0 in the network's input at a sigma > 0."""
    value = torch.tensor([sigma])
    if is_scaled(model_sampling):
        return float(model_sampling.factors(value, 1)[0])
    return float((1.0 + value**2) ** -0.5)


def last_sigma(model_sampling: Any, before: float) -> float:
    """Where DDIM ends: the noise of timestep 0, for a run whose last evaluated sigma is `before`.

    DynamiCrafter keeps the scale of that last evaluation, so less signal stands against the noise.
    """
    sigma = float(model_sampling.sigmas[0])
    if not keeps_last_scale(model_sampling):
        return sigma
    return sigma / scale_at(model_sampling, before)  # the scale of timestep 0 is 1


def final_scale(model_sampling: Any, before: float, end: float) -> float:
    """What turns a sample at sigma `end` into the latent that the originals decode.

    before: the last sigma that the model was evaluated at.
    """
    if not keeps_last_scale(model_sampling):
        return 1.0 if end == 0 else signal_at(model_sampling, end)
    scale = scale_at(model_sampling, before)
    if end == 0:
        return scale
    if is_last(model_sampling, before, end):
        return scale * float(model_sampling.schedule.alphas_cumprod[0].sqrt())
    return signal_at(model_sampling, end)


def is_last(model_sampling: Any, before: float, end: float) -> bool:
    """Whether a run's sigmas end where `last_sigma` says."""
    return abs(end / last_sigma(model_sampling, before) - 1) < 1e-4


def keeps_last_scale(model_sampling: Any) -> bool:
    """Whether the model's sampler ends with its last scale left on the latent."""
    return is_scaled(model_sampling) and model_sampling.schedule.keeps_last_scale


def scale_at(model_sampling: Any, sigma: float) -> float:
    """The scale of the signal at a sigma > 0."""
    return float(tables_at(model_sampling, torch.tensor([sigma]))[2])


def exact(values: Tensor) -> Tensor:
    """In double precision, on the CPU: not every GPU has it (Apple's, Intel's)."""
    return values.cpu().double()
