"""Models that the nodes saved: our own names of tensors, and the configuration among them."""

from __future__ import annotations

import re
from typing import Any

import torch

from ..errors import T2VError
from ..foreign import parse_json
from ..texts import strict_json
from . import ldm
from .configs import is_number
from .layouts import Layout, Shapes
from .tensors import LazyDict

CONFIG_KEY = "t2v_config"
"""The tensor that holds the configuration of a saved model: the bytes of a JSON object."""


def config_tensor(config: dict[str, Any]) -> torch.Tensor:
    """Pack a configuration, see `saved_config`, into a tensor of bytes, (n,) uint8, to be saved as `CONFIG_KEY`."""
    return torch.frombuffer(bytearray(strict_json(config).encode()), dtype=torch.uint8)


def saved_config(tensors: LazyDict) -> dict[str, Any]:
    """Read the configuration of a saved model; {} where the tensors hold none, or none that can be read.

    Its keys: "unet" (the fields of a UNetConfig), "scheduler" (as in scheduler_config.json), "family" (the fields of a
    Family; in older files its name), "scale_factor" (of the latents).
    """
    tensor = tensors.get(CONFIG_KEY)
    if tensor is None or tensor.dtype != torch.uint8 or tensor.numel > 1 << 20:
        return {}
    try:
        config = parse_json(bytes(tensor.load().flatten().tolist()), CONFIG_KEY)
    except T2VError:
        return {}
    config = config if isinstance(config, dict) else {}
    scale = config.get("scale_factor", 1.0)
    return config if is_number(scale) and 0 < scale < 1e3 else {}


def unet_json(config: dict[str, Any]) -> dict[str, Any]:
    """Return a saved configuration under the keys of a unet/config.json; {} where it is empty."""
    if not config:
        return {}
    unet, family = config.get("unet"), config.get("family")
    unet = dict(unet) if isinstance(unet, dict) else {}
    for ours, theirs in (("head_dim", "attention_head_dim"), ("norm_groups", "norm_num_groups")):
        unet.setdefault(theirs, unet.get(ours))
    settings = family if isinstance(family, dict) else {"family": family} if isinstance(family, str) else {}
    return unet | ({"t2v": settings} if settings else {})


def infer(shapes: Shapes) -> dict[str, Any]:
    """Infer the fields of a UNetConfig from names and shapes, see `ldm.infer`."""
    numbered = {}
    for name, shape in shapes.items():
        name = re.sub(r"^init_attn\.", "init_attn.0.", name.replace(".temporal.", ".2."))
        name = name.replace(".temporal_conv.", ".temopral_conv.").replace(".image_scale.weight", ".alpha")
        numbered[re.sub(r"(\.relative_position_[kv])\.weight$", r"\1.embeddings_table", name)] = shape
    return ldm.infer(numbered)


LAYOUT = Layout("native", "this pack's own layout", lambda name, config: name, lambda name, shape: shape, infer)
