"""Finished chunks of a video from an image model, and all that decides how it looks, so that only its own go on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from comfy.controlnet import ControlBase
from torch import Tensor

from ....t2v_models.films.store import Store
from ....t2v_models.fingerprint import weights_digest
from ....t2v_models.sampling.scenes import FrameContexts
from .. import unfinished


def store(model: Any, conditionings: list[list], about: Any) -> Store:
    """Return the folder for a video's finished chunks; one that stores nothing where a later run cannot be compared.

    Args:
        model: the host's.
        conditionings: CONDITIONINGs of the host.
        about: further values that decide how the video looks.
    """
    digest, unknown = hashlib.sha256(), unfinished.code_on(model)
    inner = model.model
    feed(digest, [conditionings, about, (inner.manual_cast_dtype, inner.get_dtype())], unknown)
    feed(digest, type(model.get_model_object("model_sampling")).__mro__[:3], unknown)
    if not unfinished.resumable("The video", sorted(set(unknown))):
        return Store(None, {})
    known = {"model": unfinished.patcher_digest(model), "settings": digest.hexdigest()}
    return Store(unfinished.folder(sorted(known.items())), known)


def feed(digest: Any, value: Any, unknown: list[str]) -> None:
    """Add values to a digest, whole: tensors, texts, numbers, stories, ControlNets with their hints and weights.

    unknown: gets the types of values that no digest covers.
    """
    if isinstance(value, Tensor):
        digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    elif isinstance(value, list | tuple):
        digest.update(f"{len(value)} values".encode())
        for each in value:
            feed(digest, each, unknown)
    elif isinstance(value, Mapping):
        feed(digest, [part for key in sorted(value, key=str) for part in (str(key), value[key])], unknown)
    elif isinstance(value, FrameContexts):
        feed(digest, [value.texts, value.blend], unknown)
    elif isinstance(value, ControlBase) and isinstance(getattr(value, "control_model", None), torch.nn.Module):
        how = (value.strength, value.timestep_percent_range, value.previous_controlnet)
        feed(digest, [weights_digest(value.control_model), value.cond_hint_original, *how], unknown)
    elif (
        value is None
        or isinstance(value, str | int | float | torch.dtype | type)
        or hasattr(value, "__dataclass_fields__")
    ):
        digest.update(repr(value).encode())
    else:
        unknown.append(type(value).__name__)
