"""Inputs that several nodes share, and the check of all that enters a node."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from comfy_api.latest import io

from .host import values


def checked(execute: Callable[..., io.NodeOutput]) -> Callable[..., io.NodeOutput]:
    """Wrap a node's `execute`, so that its arguments have passed `values.checked`; T2VError for one that cannot."""
    names = list(inspect.signature(execute).parameters)[1:]

    @functools.wraps(execute)
    def run(cls: Any, *args: Any, **kwargs: Any) -> io.NodeOutput:
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        schema = cls.SCHEMA or cls.GET_SCHEMA()
        kinds = {each.id: each for each in schema.inputs}
        return execute(cls, **{name: values.checked(kinds[name], value) for name, value in given.items()})

    return run


def model() -> io.Input:
    """A MODEL of a video model."""
    return io.Model.Input("model", tooltip="The MODEL of T2VModelLoader.")


def clip() -> io.Input:
    """A CLIP."""
    return io.Clip.Input("clip", tooltip="The CLIP of T2VModelLoader.")


def vae() -> io.Input:
    """A VAE."""
    return io.Vae.Input("vae", tooltip="The VAE of T2VModelLoader, or any Stable Diffusion VAE.")


def negative() -> io.Input:
    """The negative conditioning of a sampler."""
    return io.Conditioning.Input("negative", tooltip="What it must not show; an empty text is usual.")


def size(tooltip: str) -> list[io.Input]:
    """Width and height in pixels, where 0 is the node's own choice; `{side}` in the tooltip becomes "width" or "height"."""
    return [
        io.Int.Input(side, default=0, min=0, max=8192, step=8, tooltip=tooltip.format(side=side))
        for side in ("width", "height")
    ]


def seed(what: str) -> io.Input:
    """A seed, which the editor can change after each run. what: the thing that it makes."""
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=0xFFFFFFFFFFFFFFFF,
        control_after_generate=True,
        tooltip=f"The same seed and settings give the same {what}.",
    )


def cfg(tooltip: str) -> io.Input:
    """The guidance scale."""
    return io.Float.Input("cfg", default=7.5, min=0.0, max=100.0, step=0.1, round=0.01, tooltip=tooltip)
