"""Modules of diffusers and transformers that are made without memory and get the weights of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_LEVELS = ("text_model.", "vision_model.")
"""What begins the names of CLIP's weights in files; transformers 5 has dropped this level in its modules."""


def filled(
    module: torch.nn.Module, weights: Mapping[str, Tensor], dtype: torch.dtype, device: torch.device | str
) -> Any:
    """Put weights, by the names in published files, into a module of the meta device, in evaluation mode.

    A buffer that is not saved is made as its class makes it.
    """
    if not any(name.startswith(_LEVELS) for name in module.state_dict()):
        weights = {_without_level(name): weight for name, weight in weights.items()}
    module.load_state_dict({name: weight.to(device, dtype) for name, weight in weights.items()}, assign=True)
    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta:  # CLIP's position_ids, the only one there is
            owner, _, last = name.rpartition(".")
            positions = torch.arange(buffer.shape[-1], device=device).expand(buffer.shape)
            module.get_submodule(owner).register_buffer(last, positions, persistent=False)
    return module.eval().requires_grad_(False)


def _without_level(name: str) -> str:
    for level in _LEVELS:
        name = name.removeprefix(level)
    return name
