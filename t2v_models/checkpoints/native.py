"""Our own names, as ComfyUI's ModelSave writes them."""

from __future__ import annotations

import re

from . import ldm
from .layouts import Layout, Shapes


def infer(shapes: Shapes) -> dict:
    """The fields of a UNetConfig that names and shapes tell."""
    numbered = {}
    for name, shape in shapes.items():
        name = re.sub(r"^init_attn\.", "init_attn.0.", name.replace(".temporal.", ".2."))
        name = name.replace(".temporal_conv.", ".temopral_conv.").replace(".image_scale.weight", ".alpha")
        numbered[re.sub(r"(\.relative_position_[kv])\.weight$", r"\1.embeddings_table", name)] = shape
    return ldm.infer(numbered)


LAYOUT = Layout("native", "this pack's own layout", lambda name, config: name, lambda name, shape: shape, infer)
