"""FrameInit around the host's sampling, for every sampler node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import comfy.patcher_extension
from torch import Tensor

from ....t2v_models.errors import T2VError
from ....t2v_models.sampling.frame_init import CUTOFF, frame_init_noise
from ..models.model import video_model
from ..models.model_sampling import family_schedule, is_scaled, signal_at
from .free_noise import as_clips, in_layout_of

KEY = "t2v_frame_init"


@dataclass(frozen=True)
class FrameInit:
    """Frames whose slow changes go into the noise. Source: see `t2v_models.sampling.frame_init`."""

    still: Tensor
    """(1, c, t, h, w) latents, as the host hands them from node to node."""
    timestep: int | None = None
    cutoff: float = CUTOFF
    strength: float = 1.0
    """Share of the noise that holds the frames, 0..1."""

    def outer_sample(
        self, executor: Any, noise: Tensor, latent: Tensor, sampler: Any, sigmas: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Wrap a sampling run of the host: it begins with noise that holds the frames.

        Raises:
            T2VError: without noise, for a latent that holds something, and for one of another size.
        """
        clips = as_clips(noise)
        if not noise.any() or latent.any():
            raise T2VError(
                "Frame init begins with noise alone: wire the LATENT of T2VImageToVideo, with denoise 1 and with noise."
            )
        if clips.shape[2:] != self.still.shape[2:]:
            sizes = (f"{t} frames of {8 * w}x{8 * h}" for _, _, t, h, w in (clips.shape, self.still.shape))
            raise T2VError(f"The latent has {' and the picture '.join(sizes)}: wire the LATENT of T2VImageToVideo.")
        patcher = executor.class_obj.model_patcher
        noise = in_layout_of(self.mixed(patcher, clips, float(sigmas[0])), noise)
        return executor(noise, latent, sampler, sigmas, *args, **kwargs)

    def mixed(self, patcher: Any, noise: Tensor, sigma: float) -> Tensor:
        """Return the host's noise, (b, c, t, h, w), with the slow changes of the frames. sigma: the first of the run."""
        inner, model_sampling = patcher.model, patcher.get_model_object("model_sampling")
        schedule = family_schedule(patcher.get_model_object("scheduler"), inner.family)
        if not is_scaled(model_sampling):
            schedule = schedule.without_scale()
        still = inner.process_latent_in(self.still).to(noise)
        most = float(model_sampling.sigma_max)
        # the factor from the host's noise to the network's first input
        gain = 1.0 if sigma >= most * (1 - 1e-5) else sigma * signal_at(model_sampling, sigma)
        made = frame_init_noise(gain * noise, still, schedule, self.timestep, self.cutoff) / gain
        return made if self.strength == 1 else (1 - self.strength) * noise + self.strength * made


def with_frame_init(model: Any, still: Tensor, *, strength: float = 1.0) -> Any:
    """Return a clone of the MODEL that begins with noise in which frames show through.

    still: (1, c, t, h, w) latents of the frames. strength: see `FrameInit`.
    """
    video_model(model)
    model = model.clone()
    stage = comfy.patcher_extension.WrappersMP.OUTER_SAMPLE
    model.add_wrapper_with_key(stage, KEY, FrameInit(still, strength=strength).outer_sample)
    return model
