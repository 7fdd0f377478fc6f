"""The wrappers that trainers, compilers and savers leave in the names of tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

_MODULES = (
    "_orig_mod",
    "_checkpoint_wrapped_module",
    "_fsdp_wrapped_module",
    "_forward_module",
    "module",
    "base_layer",
)
"""Modules that torch.compile, checkpointing, FSDP, Lightning, DDP and peft put around others, anywhere in a network."""

_ENTRIES = (
    "state_dict",
    "model_state_dict",
    "model",
    "ema_model",
    "model_ema",
    "ema",
    "net",
    "network",
    "params",
    "lora",
    "lora_weights",
    "unet_lora",
)
"""Dictionaries, and networks, around the network that a file is for."""

_INSIDE = re.compile(rf"(?:(?<=\.)|^)(?:(?:{'|'.join(_MODULES)})\.)+")
_FLAT = re.compile(rf"(?:{'|'.join(name for name in _MODULES if name.startswith('_'))})_|(?<=^lora_unet_)module_")
_AROUND = re.compile(rf"^(?:(?:{'|'.join(_ENTRIES)})\.)+")


def without_wrappers(tensors: Mapping[str, T], *, around: bool = False) -> dict[str, T]:
    """Return tensors by their names without wrappers ("module.conv_in.weight" -> "conv_in.weight").

    Wrapping modules are taken off wherever they stand in a name, also where a trainer wrote underscores for its dots
    ("lora_unet__orig_mod_conv_in"). Where names would become equal, one tensor gets the short name, averaged weights
    ("ema.…") last, and the others keep their own.

    Args:
        tensors: by the names in a file.
        around: take off the dictionaries and networks around the whole, too ("state_dict.", "model.", "ema."). The parts
            of a model are found behind any prefix, so models keep theirs.
    """
    short = {name: _short(name, around) for name in tensors}
    taken = {name for name in tensors if short[name] == name}
    result: dict[str, T] = {}
    for name in sorted(tensors, key=lambda name: around and _is_average(name)):
        key = name if short[name] in taken else short[name]
        taken.add(key)
        result[key] = tensors[name]
    return result


def _short(name: str, around: bool) -> str:
    short = _FLAT.sub("", _INSIDE.sub("", name))
    return _AROUND.sub("", short) if around else short


def _is_average(name: str) -> bool:
    return "ema" in name.split(".", 1)[0].split("_")
