"""The network between an image encoder and the UNet: its weights in the host's memory manager."""

from __future__ import annotations

from collections.abc import Mapping

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import torch
from torch import Tensor

from ....t2v_models.image.resampler import Resampler, ResamplerConfig, resampler_state


class ImageProjector:
    """A Resampler that the host loads when it is used and takes off the device when it needs the room."""

    def __init__(self, state_dict: Mapping[str, Tensor]) -> None:
        """Build the network from the weights in a checkpoint. Raises T2VError where they are not a Resampler's."""
        self.config = ResamplerConfig.of(state_dict)
        self.load_device = comfy.model_management.text_encoder_device()
        offload = comfy.model_management.text_encoder_offload_device()
        dtype = state_dict["proj_in.weight"].dtype  # as in the file: it is small
        self.network = Resampler(self.config, comfy.ops.manual_cast, dtype=dtype, device=offload)
        self.network.load_state_dict(resampler_state(state_dict))
        self.network.eval().requires_grad_(False)
        self.patcher = comfy.model_patcher.ModelPatcher(
            self.network, load_device=self.load_device, offload_device=offload
        )

    def project(self, tokens: Tensor) -> Tensor:
        """Turn the encoder's tokens, (b, 257, width), into image tokens for the UNet, (b, queries, context_dim)."""
        comfy.model_management.load_models_gpu([self.patcher])
        kept = comfy.model_management.intermediate_device()
        return self.network(tokens.to(self.load_device, torch.float32)).to(kept)

    def state_dict(self) -> dict[str, Tensor]:
        """The weights by their published names."""
        weights = self.network.state_dict()
        latents = weights.pop("latents.weight")
        return {"latents": latents[None], **weights}
