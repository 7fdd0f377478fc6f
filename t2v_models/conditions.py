"""What a UNet takes besides the noise level and the text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .sampling.guidance import MOTION_GUIDANCE, motion_guidance

if TYPE_CHECKING:
    from .unet import UNetConfig


@dataclass(frozen=True)
class Conditions:
    """The values for which some UNets have an embedding; None where this one has none, or its own default holds."""

    fps: float | None = None
    """Frames per second of the video (of DynamiCrafter: its frame stride)."""
    guidance: float | None = None
    """Guidance scale of a model that was distilled with guidance."""
    motion_guidance: float | None = None
    """Strength of T2V-Turbo v2's motion guidance at the noisy timesteps, see `sampling.guidance`."""
    image: Tensor | None = None
    """(b, i, d) tokens of an image, or (b, t, i, d), one set per frame."""

    @classmethod
    def of(
        cls,
        config: UNetConfig,
        fps: float | None,
        guidance: float | None,
        motion_guidance: float | None = MOTION_GUIDANCE,
    ) -> Conditions:
        """Those of the given values that a UNet of this configuration has an embedding for."""
        return cls(
            fps=fps if config.fps_embedding else None,
            guidance=guidance if config.guidance_dim else None,
            motion_guidance=motion_guidance if config.motion_dim else None,
        )

    def arguments(self, timesteps: Tensor) -> dict[str, Any]:
        """The keyword arguments of `UNet3D.forward` for clips at these timesteps, (b,) or (b, t)."""
        given: dict[str, Any] = {"fps": self.fps, "image_context": self.image}
        if self.guidance is not None:
            given["guidance"] = torch.full((len(timesteps),), float(self.guidance), device=timesteps.device)
        if self.motion_guidance is not None:
            given["motion_guidance"] = motion_guidance(timesteps, self.motion_guidance)
        return {name: value for name, value in given.items() if value is not None}


def predict(
    unet: Callable[..., Tensor],
    x: Tensor,
    timesteps: Tensor,
    context: Tensor,
    conditions: Conditions,
    options: dict[str, Any] | None = None,
) -> Tensor:
    """Call a UNet, or `Windows.around` one; shapes as in `UNet3D.forward`."""
    given = conditions.arguments(timesteps)
    if options is not None:
        given["options"] = options
    return unet(x, timesteps, context, **given)
