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
    """(r b, i, d) tokens of images for r texts of each of b latents, or (r b, t, i, d), one set for each frame."""
    image_latents: Tensor | None = None
    """(b, c, t, h, w), concatenated behind the latents' own channels: the pictures that the frames follow (DynamiCrafter)."""
    image_strength: float = 1.0
    """Factor on the attention to the image tokens; `image_latents` are given with theirs."""

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
    """Call a UNet, or `Windows.around` one; shapes as in `UNet3D.forward`, x without the channels of image latents."""
    given = conditions.arguments(timesteps)
    if conditions.image_strength != 1:
        options = {**(options or {}), "image_strength": conditions.image_strength}
    if options is not None:
        given["options"] = options
    if conditions.image_latents is not None:
        x = torch.cat([x, conditions.image_latents.to(x)], dim=1)
    return unet(x, timesteps, context, **given)
