"""FreeInit around the host's sampling, for every sampler node."""

from __future__ import annotations

import math
from typing import Any

import comfy.model_management
import comfy.sample
from torch import Tensor

from ....t2v_models.errors import T2VError
from ....t2v_models.sampling.noise import low_pass, mix_frequencies
from ..models.model import video_model
from ..models.unet import FREE_NOISE
from .free_noise import FREE_INIT, OUTER_SAMPLE, as_clips, in_layout_of, repeated_noise, sampling_seed


def with_free_init(model: Any, iterations: int, filter_name: str, spatial: float, temporal: float, order: int) -> Any:
    """Return a clone that samples several times, each time on noise that keeps the slow changes of the last result.

    Source: Wu et al. 2024, FreeInit (arXiv:2312.07537).
    """
    video_model(model)

    def outer_sample(
        executor: Any, noise: Tensor, latent: Tensor, sampler: Any, sigmas: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        first, seed = noise, sampling_seed(args, kwargs)
        if not noise.any():
            raise T2VError("T2VFreeInit renews the noise, and the sampler adds none: switch add_noise on.")
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
            clean = inner.process_latent_in(result).to(first)  # the noise is on the host's device, not the model's
            diffused = as_clips((clean - known.to(first) + sigma * first) / gain)
            fresh = as_clips(comfy.sample.prepare_noise(result, (seed + i + 1) % 2**64).to(first))
            if repeated is not None:
                fresh = repeated_noise(fresh, repeated, seed + i + 1)
            passing = low_pass(tuple(fresh.shape[2:]), filter_name, spatial=spatial, temporal=temporal, order=order)
            noise = in_layout_of(mix_frequencies(diffused, fresh, passing), first)
        return result

    model = model.clone()
    inner = model.model
    model.add_wrapper_with_key(OUTER_SAMPLE, FREE_INIT, outer_sample)
    return model
