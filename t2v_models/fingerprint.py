"""Digests that tell one model from another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .families import Family
    from .sampling.schedule import NoiseSchedule


def weights_digest(model: torch.nn.Module, replaced: Mapping[str, Tensor] | None = None) -> str:
    """SHA-256 over the name, shape, type and 256 values of every weight of a model.

    replaced: weights to take instead of the model's own, by name.
    """
    digest = hashlib.sha256()
    for name, value in {**model.state_dict(), **(replaced or {})}.items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(sample_bytes(value))
    return digest.hexdigest()


def schedule_digest(schedule: NoiseSchedule, family: Family) -> str:
    """SHA-256 over a noise schedule and a model's family, which decide the latents as the weights do."""
    about = (sorted(schedule.config.items()), schedule.prediction_type, float(schedule.scale[-1]), family)
    return hashlib.sha256(repr(about).encode()).hexdigest()


def sample_bytes(value: Tensor, count: int = 256) -> bytes:
    """The bytes of about that many values of a tensor, evenly spaced over all of it."""
    flat = value.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // count)].cpu().contiguous().view(torch.uint8).numpy().tobytes()
