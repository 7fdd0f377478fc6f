"""The noise schedule of a model: how much signal and how much noise a latent holds at every timestep.

This is the only place that multiplies betas up. diffusers' schedulers, the host's ModelSampling, the films' DDIM and the
training of the built-in model all take their numbers from a `NoiseSchedule`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import T2VError
from .timesteps import timesteps_of

CLEAN = -1
"""The timestep of a latent without noise: signal 1, noise 0. It lies behind timestep 0, where a little noise is left."""

SCALED_TIMESTEPS = 400
"""Over so many timesteps VideoCrafter's and DynamiCrafter's scale falls from 1 to its base."""

SMALLEST_SIGNAL = 2**-24
"""diffusers' stand-in for an alphas_cumprod of 0, where a solver needs a finite sigma."""


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """x_t = s_t sqrt(abar_t) x_0 + sqrt(1 - abar_t) e, for the timesteps t of a model and Gaussian noise e.

    The scale s_t is 1 but for VideoCrafter and DynamiCrafter, whose networks see a weaker signal at noisy timesteps.
    Where the terminal SNR is zero, abar of the last timestep is exactly 0.

    Source: Ho et al. 2020 (arXiv:2006.11239); Lin et al. 2023 (arXiv:2305.08891), zero terminal SNR; Chen et al. 2023
    (arXiv:2310.19512) and Xing et al. 2023 (arXiv:2310.12190), the scale.
    """

    alphas_cumprod: Tensor
    """(timesteps,) abar, float64, on the CPU; without the scale."""
    scale: Tensor
    """(timesteps,) s, float64, on the CPU."""
    prediction_type: str = "epsilon"
    """What the network predicts: "epsilon", the noise, or "v_prediction", the velocity sqrt(abar) e - sqrt(1 - abar) s x_0."""
    keeps_last_scale: bool = False
    """DynamiCrafter's rule: the sampler's result keeps the scale of its last timestep. VideoCrafter's goes to 1."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The diffusers scheduler configuration that it was read from."""

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], *, scale_base: float | None = None, keeps_last_scale: bool = False
    ) -> NoiseSchedule:
        """The schedule of a diffusers scheduler configuration.

        Args:
            config: what scheduler_config.json holds.
            scale_base: the value that the scale falls to, 0.7 (512 pixels) or 0.3 (1024); no scale where None.
            keeps_last_scale: see the field.

        Raises:
            T2VError: for a beta_schedule or prediction_type that is not known.
        """
        prediction_type = config.get("prediction_type", "epsilon")
        if prediction_type not in ("epsilon", "v_prediction"):
            raise T2VError(f"prediction_type is {prediction_type!r}: epsilon or v_prediction is wanted.")
        abar = _alphas_cumprod(config)
        scale = torch.ones_like(abar)
        if scale_base is not None:
            scale[SCALED_TIMESTEPS:] = scale_base
            scale[:SCALED_TIMESTEPS] = torch.linspace(1, scale_base, SCALED_TIMESTEPS, dtype=torch.float64)
        return cls(abar, scale, prediction_type, keeps_last_scale, config)

    def without_scale(self) -> NoiseSchedule:
        """This schedule with a scale of 1 everywhere."""
        return replace(self, scale=torch.ones_like(self.scale), keeps_last_scale=False)

    @property
    def is_scaled(self) -> bool:
        """Whether the signal is scaled."""
        return bool((self.scale != 1).any())

    @property
    def signal(self) -> Tensor:
        """(timesteps,) float64: what x_0 is multiplied with."""
        return self.scale * self.alphas_cumprod.sqrt()

    @property
    def noise(self) -> Tensor:
        """(timesteps,) float64: what the noise is multiplied with."""
        return (1 - self.alphas_cumprod).sqrt()

    def timesteps(self, steps: int) -> Tensor:
        """(steps,) int64: the model's own timesteps for so many steps, from noisy to clean."""
        return timesteps_of(self.config, steps)

    def abar(self, t: Tensor, like: Tensor) -> Tensor:
        """alphas_cumprod at the timesteps, in the type and on the device of `like`; 1 at `CLEAN`. See `factors`."""
        return _spread(_at(self.alphas_cumprod, t).to(like), like.ndim)

    def factors(self, t: Tensor, like: Tensor, *, scale_at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The factors of x_0 and of the noise in latents at their timesteps.

        Args:
            t: whole timesteps, one for all, (b,), or (b, frames); `CLEAN` counts as one.
            like: (b, c, frames, h, w) latents, whose type, device and dimensions the factors take.
            scale_at: timesteps to take the scale of, where it is not that of `t`.

        Returns:
            Two tensors that broadcast over `like`.
        """
        abar = self.abar(t, like)
        scale = _at(self.scale, t if scale_at is None else scale_at)
        return abar.sqrt() * _spread(scale.to(like), like.ndim), (1 - abar).sqrt()

    def to_clean(self, x: Tensor, prediction: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The clean latents and the noise that a prediction implies.

        Args:
            x: (b, c, frames, h, w) as the network sees it.
            prediction: of the network, like x.
            t: see `factors`.

        Returns:
            (x_0, e), each like x. Source of the velocity: Salimans and Ho 2022 (arXiv:2202.00512).
        """
        signal, noise = self.factors(t, x)
        if self.prediction_type == "epsilon":
            return (x - noise * prediction) / signal, prediction
        # the velocity belongs to the schedule without the scale
        root, scale = self.abar(t, x).sqrt(), _spread(_at(self.scale, t).to(x), x.ndim)
        return (root * x - noise * prediction) / scale, noise * x + root * prediction

    def velocity(self, x: Tensor, clean: Tensor, t: Tensor) -> Tensor:
        """The velocity from which `to_clean` gives these clean latents; all like x. Source: as `to_clean`."""
        root, scale = self.abar(t, x).sqrt(), _spread(_at(self.scale, t).to(x), x.ndim)
        return (root * x - scale * clean) / self.factors(t, x)[1]

    def add_noise(self, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Clean latents with noise, as the network sees them at timesteps t (see `factors`); all like `clean`."""
        signal, share = self.factors(t, clean)
        return signal * clean + share * noise

    def add_more_noise(self, x: Tensor, noise: Tensor, t: Tensor, t_from: Tensor) -> Tensor:
        """Latents at timesteps t_from taken back to the noisier timesteps t, by fresh noise; all like x."""
        before = self.abar(t_from, x)
        ratio = self.abar(t, x) / before
        scale = _spread((_at(self.scale, t) / _at(self.scale, t_from)).to(x), x.ndim)
        fresh = 1 - ratio + ratio * (1 - before) * (1 - scale**2)  # 1 - ratio where the scale stays
        return ratio.sqrt() * scale * x + fresh.sqrt() * noise

    def variance_preserving(self) -> tuple[dict[str, Any], Tensor | None]:
        """The schedule in diffusers' terms, which has signal^2 + noise^2 = 1: a configuration and a factor.

        Returns:
            diffusers' configuration, and (timesteps,) float32 what its x_t is multiplied with for the network; None
            where that is 1 everywhere.
        """
        config = {key: value for key, value in self.config.items() if key not in ("scale_base", "keeps_last_scale")}
        if not self.is_scaled:
            return config, None
        signal = self.signal**2
        norm = signal + 1 - self.alphas_cumprod
        betas = betas_of(signal / norm).float()
        return {**config, "trained_betas": betas.tolist(), "rescale_betas_zero_snr": False}, norm.sqrt().float()

    def to_variance_preserving(self, x: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """What a network would have predicted whose schedule is `variance_preserving`. Arguments as `to_clean` has them."""
        if self.prediction_type == "epsilon" or not self.is_scaled:
            return prediction
        clean, noise = self.to_clean(x, prediction, t)
        signal, share = self.factors(t, x)
        norm = (signal**2 + share**2).sqrt()
        return (signal * noise - share * clean) / norm


def betas_of(abar: Tensor) -> Tensor:
    """Betas whose products of 1 - beta are (timesteps,) abar. A last one of 0 becomes diffusers' smallest signal."""
    abar = abar.clamp(min=SMALLEST_SIGNAL)
    return 1 - abar / torch.cat([torch.ones(1, dtype=abar.dtype), abar[:-1]])


def _alphas_cumprod(config: Mapping[str, Any]) -> Tensor:
    """(timesteps,) abar of a diffusers scheduler configuration, float64; 0 at the end where the terminal SNR is zero."""
    count, schedule = config.get("num_train_timesteps", 1000), config.get("beta_schedule")
    if config.get("trained_betas") is not None:
        betas = torch.tensor(config["trained_betas"], dtype=torch.float64)
    elif schedule == "scaled_linear":
        betas = torch.linspace(config["beta_start"] ** 0.5, config["beta_end"] ** 0.5, count, dtype=torch.float64) ** 2
    elif schedule == "linear":
        betas = torch.linspace(config["beta_start"], config["beta_end"], count, dtype=torch.float64)
    elif schedule == "squaredcos_cap_v2":  # Nichol and Dhariwal 2021 (arXiv:2102.09672), section 3.2
        time = torch.arange(count + 1, dtype=torch.float64) / count
        share = ((time + 0.008) / 1.008 * torch.pi / 2).cos().square()
        betas = (1 - share[1:] / share[:-1]).clamp(max=0.999)
    else:
        raise T2VError(f"beta_schedule is {schedule!r}: scaled_linear, linear or squaredcos_cap_v2 is wanted.")
    abar = torch.cumprod(1 - betas, dim=0)
    if config.get("rescale_betas_zero_snr"):  # Lin et al. 2023 (arXiv:2305.08891), algorithm 1
        root = abar.sqrt()
        abar = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    return abar


def _at(table: Tensor, t: Tensor) -> Tensor:
    """The table's values at whole timesteps on any device; 1 at `CLEAN`."""
    t = t.to(table.device)
    return torch.where(t < 0, torch.ones((), dtype=table.dtype), table[t.clamp(min=0)])


def _spread(values: Tensor, ndim: int) -> Tensor:
    """One value, (b,) or (b, frames) values, so that they broadcast over (b, c, frames, h, w)."""
    if values.ndim == 0 or ndim < 2:
        return values
    if values.ndim == 1:
        return values.view(-1, *[1] * (ndim - 1))
    return values[:, None, :].reshape(values.shape[0], 1, values.shape[1], *[1] * (ndim - 3))
