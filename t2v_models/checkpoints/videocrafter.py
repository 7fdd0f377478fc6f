"""VideoCrafter's layout: VideoCrafter 1 and 2, DynamiCrafter, T2V-Turbo on VideoCrafter2."""

from __future__ import annotations

import re

from ..unet import UNetConfig
from . import ldm
from .layouts import Layout, Shape


def rename(name: str, config: UNetConfig) -> str:
    """Return VideoCrafter's name of a canonical one."""
    return ldm.rename(re.sub(r"^init_attn\.", "init_attn.0.", name), config)


def reshape(name: str, shape: Shape) -> Shape:
    """Return VideoCrafter's shape: of the projections around temporal attention, the first transformer's are Conv1d."""
    initial = name.startswith("init_attn.proj_") and name.endswith(".weight")
    return (*shape, 1) if initial and len(shape) == 2 else ldm.reshape(name, shape)


LAYOUT = Layout("videocrafter", "VideoCrafter's layout", rename, reshape, ldm.infer)
