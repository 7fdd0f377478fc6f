"""FreeInit around the host's sampling, for every sampler node."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.sample
from torch import Tensor

from ....t2v_models.errors import T2VError
from ....t2v_models.sampling.noise import low_pass, mix_frequencies
from ..models.model import video_model
from ..models.unet import FREE_NOISE
from .free_noise import FREE_INIT, OUTER_SAMPLE, as_clips, in_layout_of, repeated_noise, sampling_seed


@dataclass(frozen=True)
class FreeInit:
    """FreeInit's rounds, with the filter that says which changes of a clip are slow, see `sampling.noise.low_pass`.

    Source: Wu et al. 2024, FreeInit (arXiv:2312.07537).
    """

    iterations: int
    filter_name: str
    spatial: float
    temporal: float
    order: int

    def outer_sample(
        self, executor: Any, noise: Tensor, latent: Tensor, sampler: Any, sigmas: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Wrap a sampling run of the host: repeat it, each time on the noise that `renewed` makes of its result."""
        if not noise.any():
            raise T2VError("T2VFreeInit renews the noise, and the sampler adds none: switch add_noise on.")
        patcher, seed = executor.class_obj.model_patcher, sampling_seed(args, kwargs)
        given = noise
        for i in range(self.iterations - 1):
            result = executor(given, latent, sampler, sigmas, *args, **kwargs)
            comfy.model_management.throw_exception_if_processing_interrupted()
            given = self.renewed(patcher, noise, latent, result, float(sigmas[0]), seed + i + 1)
        return executor(given, latent, sampler, sigmas, *args, **kwargs)

    def renewed(self, model: Any, noise: Tensor, latent: Tensor, result: Tensor, sigma: float, seed: int) -> Tensor:
        """Return noise with the slow changes of the diffused result, and fresh noise in the place of all others.

        noise: of the first round, on the host's device, in the layout that is returned. sigma: the first of the run.
        """
        inner = model.model
        known = inner.process_latent_in(latent) if latent.any() else latent
        # what the host multiplies noise with, before it adds the latent
        most = float(model.get_model_object("model_sampling").sigma_max)
        gain = math.sqrt(1 + sigma**2) if sigma >= most * (1 - 1e-5) else sigma
        clean = inner.process_latent_in(result).to(noise)
        diffused = as_clips((clean - known.to(noise) + sigma * noise) / gain)
        fresh = as_clips(comfy.sample.prepare_noise(result, seed % 2**64).to(noise))
        repeated = model.model_options.get("transformer_options", {}).get(FREE_NOISE)
        if repeated is not None:
            fresh = repeated_noise(fresh, repeated, seed)
        shape = tuple(fresh.shape[2:])
        passing = low_pass(shape, self.filter_name, spatial=self.spatial, temporal=self.temporal, order=self.order)
        return in_layout_of(mix_frequencies(diffused, fresh, passing), noise)


def with_free_init(model: Any, iterations: int, filter_name: str, spatial: float, temporal: float, order: int) -> Any:
    """Return a clone that samples several times, each time on noise that keeps the slow changes of the last result."""
    video_model(model)
    model = model.clone()
    rounds = FreeInit(iterations, filter_name, spatial, temporal, order)
    model.add_wrapper_with_key(OUTER_SAMPLE, FREE_INIT, rounds.outer_sample)
    return model
