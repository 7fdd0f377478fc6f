"""What enters a node, checked once by the node's own schema: numbers, texts, choices, images and latents.

The host checks widgets against their bounds, but NaN passes every bound, and nothing that comes through a link is checked.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...t2v_models.errors import T2VError
from ...t2v_models.foreign import quoted
from ...t2v_models.texts import MOST_STORY, checked_text
from .memory import check_bytes

FILES = frozenset({"lora_name", "model", "text_encoder", "vae", "video"})
"""Inputs whose choices are files. The functions that open these say what is wrong with a name."""


def checked(given: Any, value: Any) -> Any:
    """Return the value of a node's input, converted where another node gave it in another form.

    Args:
        given: the input, as the schema describes it.
        value: a widget's, or another node's.

    Raises:
        T2VError: where it is no value of this kind, not finite, or outside the input's bounds.
    """
    if value is None and given.optional:
        return None
    check = _CHECKS.get(str(given.io_type))
    return value if check is None else check(given, value)


def _number(given: Any, value: Any) -> Any:
    whole = given.io_type == "INT"
    wanted = f"a {'whole ' * whole}number from {given.min} to {given.max} is wanted"
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise T2VError(f"{given.id} is {quoted(value)}: {wanted}.")
    if whole and int(value) != value:
        raise T2VError(f"{given.id} is {quoted(value)}: {wanted}.")
    if not given.min <= value <= given.max:
        raise T2VError(f"{given.id} is {quoted(value)}: {wanted}.")
    return int(value) if whole else value


def _text(given: Any, value: Any) -> str:
    return checked_text(value, given.id, MOST_STORY)


def _choice(given: Any, value: Any) -> Any:
    if given.id in FILES:
        return value
    if value not in given.options:
        raise T2VError(f"{given.id} is {quoted(value)}: one of {', '.join(map(str, given.options))} is wanted.")
    return value


def _images(given: Any, value: Any) -> Tensor:
    """Images as a float tensor: whole numbers of 8 or 16 bits are brought to 0..1."""
    array = isinstance(value, np.ndarray)
    if not array and not isinstance(value, Tensor):
        raise T2VError(f"{given.id} is {type(value).__name__}: an IMAGE, (frames, height, width, 3), is wanted.")
    kind = str(value.dtype).removeprefix("torch.")
    if kind in ("uint8", "uint16"):
        top = 255 if kind == "uint8" else 65535
        check_bytes(8 * math.prod(value.shape), f"{given.id} as float numbers", "give fewer or smaller images")
        as_float = torch.from_numpy(value.astype(np.float32)) if array else value.float()
        return as_float / top
    if not kind.startswith(("float", "bfloat")):
        raise T2VError(f"{given.id} holds {kind}: an IMAGE holds float numbers from 0 to 1, or uint8.")
    return _tensor(value) if array else value


def _tensor(array: np.ndarray) -> Tensor:
    """An array as a tensor: the same memory, or a copy where torch cannot write to it."""
    array = np.ascontiguousarray(array)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _latent(given: Any, value: Any) -> dict[str, Any]:
    samples = value.get("samples") if isinstance(value, Mapping) else None
    if isinstance(samples, np.ndarray) and samples.dtype.kind == "f":
        return {**value, "samples": _tensor(samples)}
    if not isinstance(samples, Tensor) and not getattr(samples, "is_nested", False):
        raise T2VError(
            f"{given.id} holds no samples: wire the LATENT of T2VEmptyLatent, a sampler or T2VVAEEncodeFrames."
        )
    return value


def _conditioning(given: Any, value: Any) -> list:
    entries = value if isinstance(value, list) else []
    if not entries or any(not isinstance(each, list | tuple) or len(each) != 2 for each in entries):
        raise T2VError(f"{given.id} holds no conditioning: wire T2VTextEncode, T2VStory or CLIPTextEncode.")
    return value


def _object(attribute: str, wanted: str) -> Callable[[Any, Any], Any]:
    """Make the check of an object of the host by one of its attributes; None passes, which a loader may give."""

    def check(given: Any, value: Any) -> Any:
        if value is not None and not hasattr(value, attribute):
            raise T2VError(f"{given.id} is {type(value).__name__}: {wanted} is wanted, such as that of T2VModelLoader.")
        return value

    return check


_CHECKS: dict[str, Callable[[Any, Any], Any]] = {
    "CLIP": _object("tokenize", "a CLIP"),
    "CLIP_VISION": _object("encode_image", "a CLIP_VISION"),
    "COMBO": _choice,
    "CONDITIONING": _conditioning,
    "FLOAT": _number,
    "IMAGE": _images,
    "INT": _number,
    "LATENT": _latent,
    "MODEL": _object("model", "a MODEL"),
    "STRING": _text,
    "VAE": _object("first_stage_model", "a VAE"),
}
