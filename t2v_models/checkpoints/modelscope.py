"""ModelScope's own layout: ModelScope 1.7B, ZeroScope, Potat1 and Animov for A1111, VGen, VideoLCM, TF-T2V."""

from __future__ import annotations

import re

from ..unet import UNetConfig
from . import ldm
from .layouts import Layout, Shape


def rename(name: str, config: UNetConfig) -> str:
    """Return ModelScope's name of a canonical one."""
    name = re.sub(r"^init_attn\.", "input_blocks.0.1.", name)
    name = re.sub(r"^(input_blocks\.\d+)\.0\.op\.", r"\1.op.", name)
    return ldm.rename(name, config)


def reshape(name: str, shape: Shape) -> Shape:
    """Return ModelScope's shape of a tensor: projections around temporal attention are Conv1d."""
    temporal = ".temporal.proj_" in name or name.startswith("init_attn.proj_")
    return (*shape, 1) if temporal and name.endswith(".weight") and len(shape) == 2 else ldm.reshape(name, shape)


LAYOUT = Layout("modelscope", "ModelScope's original layout", rename, reshape, ldm.infer)
