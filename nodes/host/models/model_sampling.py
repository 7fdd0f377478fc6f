"""Noise schedules in the host's terms: sigma = noise / signal, for models whose signal is scaled too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.model_sampling
import torch
from torch import Tensor


class Discrete(comfy.model_sampling.ModelSamplingDiscrete):
    """The host's discrete schedule, whose tables are no buffers.

    A host with dynamic VRAM puts buffers back by their names when it goes from one clone of a model to the next: a
    schedule that stands in another's place, for a LoRA, would get that one's tables.
    """

    tables: tuple[str, ...] = ("sigmas", "log_sigmas")

    def set_sigmas(self, sigmas: Tensor) -> None:
        self.sigmas, self.log_sigmas = sigmas.float(), sigmas.log().float()

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Nothing: only a host would call it, with another schedule's."""

    def _apply(self, function: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> Discrete:
        """What moves a module's buffers to another device moves the tables."""
        for name in self.tables:
            setattr(self, name, function(getattr(self, name)))
        return super()._apply(function, *args, **kwargs)


class ScaledDiscrete(Discrete):
    """A discrete schedule with x_t = sqrt(abar_t) s_t x_0 + sqrt(1 - abar_t) noise.

    VideoCrafter lets s fall linearly from 1 to a base over the first 400 steps and keeps it there. In the host's
    variance-exploding terms x_t / (sqrt(abar_t) s_t) = x_0 + sigma_t noise, with sigma_t = sqrt(1/abar_t - 1) / s_t.
    Source: Chen et al. 2023 (arXiv:2310.19512), ``use_scale``; Xing et al. 2023 (arXiv:2310.12190), dynamic rescale.
    """

    tables = ("sigmas", "log_sigmas", "signal", "noise")

    def __init__(self, model_config: Any = None, zsnr: bool | None = None) -> None:
        super().__init__(model_config, zsnr)
        settings = model_config.sampling_settings if model_config is not None else {}
        self.set_scale(settings.get("scale_base", 1.0), settings.get("scale_steps", 400))

    def set_scale(self, base: float, steps: int = 400) -> None:
        """Scale the present schedule's signal from 1 at t = 0 down to base at t = steps."""
        device = self.sigmas.device
        abar = 1.0 / (_exact(self.sigmas) ** 2 + 1.0)
        scale = torch.full_like(abar, base)
        scale[:steps] = torch.linspace(1.0, base, steps, dtype=abar.dtype)
        signal = abar.sqrt() * scale
        self.signal, self.noise = signal.float(), (1.0 - abar).sqrt().float()
        self.set_sigmas((1.0 - abar).sqrt() / signal)
        self._apply(lambda table: table.to(device))

    def parts(self, sigma: Tensor, ndim: int) -> tuple[Tensor, Tensor]:
        """The factors of x_0 and of the noise at any sigma, between the table's entries by log sigma."""
        exact, table, factors = _exact(sigma), _exact(self.log_sigmas), _exact(self.noise)
        at = exact.log().flatten()
        high = torch.searchsorted(table, at).clamp(1, len(table) - 1)
        low = high - 1
        weight = ((at - table[low]) / (table[high] - table[low])).clamp(0.0, 1.0)
        noise = torch.lerp(factors[low], factors[high], weight).reshape(sigma.shape)
        noise, signal = noise.to(sigma), (noise / exact).to(sigma)
        return comfy.model_sampling.reshape_sigma(signal, ndim), comfy.model_sampling.reshape_sigma(noise, ndim)


def _exact(values: Tensor) -> Tensor:
    """In double precision, on the processor: not every GPU has it (Apple's, Intel's)."""
    return values.cpu().double()


class _Scaled:
    """What both parametrisations share: what the network sees, and how pure noise is scaled."""

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        return noise * self.parts(sigma, noise.ndim)[0]

    def noise_scaling(self, sigma: Tensor, noise: Tensor, latent_image: Tensor, max_denoise: bool = False) -> Tensor:
        factor = comfy.model_sampling.reshape_sigma(sigma, noise.ndim)
        if max_denoise:
            factor = 1.0 / self.parts(sigma, noise.ndim)[0]
        return noise * factor + latent_image


class ScaledEPS(_Scaled, comfy.model_sampling.EPS):
    """Noise prediction: x_0 = x - sigma e holds as it is."""


class ScaledV(_Scaled, comfy.model_sampling.V_PREDICTION):
    """Velocity prediction over the unscaled schedule: s_t x_0 = sqrt(abar_t) x_t - sqrt(1 - abar_t) v."""

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        signal, noise = self.parts(sigma, model_output.ndim)
        root = (1.0 - noise**2).sqrt()  # sqrt(abar_t)
        x = model_input * signal
        scale = signal / root.clamp(min=1e-8)
        return (root * x - noise * model_output) / scale


def sampling(model_config: Any, velocity: bool, scaled: bool) -> torch.nn.Module:
    """The host's ``model_sampling`` object; scaled: with the scale of the signal that the model's family has."""
    if scaled:
        parametrisation = ScaledV if velocity else ScaledEPS
    else:
        parametrisation = comfy.model_sampling.V_PREDICTION if velocity else comfy.model_sampling.EPS

    class ModelSampling(ScaledDiscrete if scaled else Discrete, parametrisation):
        pass

    return ModelSampling(model_config)


def is_scaled(model_sampling: Any) -> bool:
    """Whether the signal is scaled: not where a LoRA or a node has put another schedule in the model's place."""
    return isinstance(model_sampling, ScaledDiscrete)


def end_scale(model_sampling: Any, sigma: float) -> float:
    """The signal at a small sigma > 0: turns a sample that ends there into the latent that the references decode."""
    value = torch.tensor([sigma])
    if is_scaled(model_sampling):
        return float(model_sampling.parts(value, 1)[0])
    return float((1.0 + value**2) ** -0.5)
