"""What `inspect` reports about a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ..families import Defaults, Family
from ..unet import UNetConfig
from .tensors import LazyDict, main_dtype


@dataclass(frozen=True)
class PartInfo:
    """One part of a checkpoint."""

    layout: str
    """Whose names its tensors have: "diffusers", "modelscope", "videocrafter", "native", "ldm", "openclip" …."""
    dtype: str
    """The floating point type of most of its numbers: "fp32", "fp16", "bf16", "fp8_e4m3fn" …."""
    parameters: int
    tensors: int
    """How many tensors it has."""
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckpointInfo:
    """What a file or folder holds."""

    path: str
    family: Family | None
    """None where there is no UNet."""
    layout: str
    """The UNet's layout, or the first part's."""
    dtype: str
    """The UNet's floating point type, or the first part's."""
    parameters: int
    """Of the UNet, or of all parts where there is none."""
    parts: dict[str, PartInfo]
    """By kind: unet, vae, text_encoder, image_encoder, image_projector, tokenizer, scheduler."""
    config: UNetConfig | None
    """None where there is no UNet."""
    defaults: Defaults
    licence: str
    other_families: tuple[str, ...] = ()
    """Families that it could be of just as well, since names and shapes do not tell: see `Checkpoint.other_families`."""
    metadata: dict[str, str] = field(default_factory=dict)
    """The texts in the header of a safetensors file."""


def dtype_name(tensors: LazyDict) -> str:
    """Name the floating point type of most elements: "fp32", "fp16", "bf16", "fp8_e4m3fn" …."""
    dtype = main_dtype(tensors)
    names = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.float64: "fp64"}
    return names.get(dtype, str(dtype).removeprefix("torch.").replace("float8_", "fp8_"))
