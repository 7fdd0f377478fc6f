"""Digests that tell one model from another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def fingerprint(model: torch.nn.Module, instead: Mapping[str, Tensor] | None = None) -> str:
    """The same for the same weights in the same type, told by some values of each; of some others are taken instead."""
    digest = hashlib.sha256()
    for name, value in {**model.state_dict(), **(instead or {})}.items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(sampled(value))
    return digest.hexdigest()


def settled(pipeline: Any) -> str:
    """Another for another noise schedule or family: both decide the latents as the weights do."""
    about = (sorted(pipeline.scheduler_config.items()), float(pipeline.schedule.scale[-1]), pipeline.family)
    return hashlib.sha256(repr(about).encode()).hexdigest()


def sampled(value: Tensor, count: int = 256) -> bytes:
    """Some values of a tensor, evenly over all of it."""
    flat = value.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // count)].cpu().contiguous().view(torch.uint8).numpy().tobytes()
