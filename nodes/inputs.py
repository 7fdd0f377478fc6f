"""Inputs that several nodes share, and the check of all that enters a node."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from comfy_api.latest import io

from ..t2v_models.errors import T2VError
from ..t2v_models.image.fit import FITS
from .host import values
from .host.compat import newer
from .host.sampling.run import sampler_names, scheduler_names


def checked(execute: Callable[..., io.NodeOutput]) -> Callable[..., io.NodeOutput]:
    """Wrap a node's `execute`, so that its arguments have passed `values.checked`; T2VError for one that cannot.

    A node that takes lists (`is_input_list`) gets lists of checked values.
    """
    names = list(inspect.signature(execute).parameters)[1:]

    @functools.wraps(execute)
    def run(cls: Any, *args: Any, **kwargs: Any) -> io.NodeOutput:
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        schema = cls.SCHEMA or cls.GET_SCHEMA()
        kinds = {each.id: each for each in schema.inputs}
        check = _each_checked if schema.is_input_list else values.checked
        return execute(cls, **{name: check(kinds[name], value) for name, value in given.items()})

    return run


def _each_checked(given: io.Input, listed: list) -> list:
    """All values of an input that takes lists, checked."""
    return [values.checked(given, value) for value in listed]


def single(name: str, listed: list) -> Any:
    """The value of a list that may hold one only; T2VError for several."""
    if len(listed) != 1:
        raise T2VError(f"{name} has {len(listed)} values and takes one: only images and positive take lists.")
    return listed[0]


def model() -> io.Input:
    """A MODEL of a video model."""
    return io.Model.Input("model", tooltip="The MODEL of T2VModelLoader.")


def image_model() -> io.Input:
    """A MODEL that makes single images."""
    return io.Model.Input(
        "model",
        tooltip="An image model: Stable Diffusion 1, 2 or XL, such as Load Checkpoint gives, with LoRAs and patches.",
    )


def videos_in_batch() -> list[io.Input]:
    """How the frames of videos lie in a batch of images; few people change it."""
    return [
        io.Int.Input(
            "frames",
            default=0,
            min=0,
            max=65536,
            optional=True,
            **newer(io.Int.Input, advanced=True),
            tooltip="Frames of each video in the batch; 0: all that the batch holds. Another number in the batch is an error.",
        ),
        io.Int.Input(
            "videos",
            default=1,
            min=1,
            max=4096,
            optional=True,
            **newer(io.Int.Input, advanced=True),
            tooltip="Videos in the batch, one after the other, each with frames of its own.",
        ),
    ]


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


def frames(tooltip: str) -> io.Input:
    """Frames of a clip, where 0 is the model's own length."""
    return io.Int.Input("frames", default=16, min=0, max=65536, tooltip=tooltip)


def fit(tooltip: str) -> io.Input:
    """How a picture of another shape than the video is brought to it."""
    return io.Combo.Input("fit", options=list(FITS), default=FITS[0], tooltip=tooltip)


def motion(tooltip: str, **options: Any) -> io.Input:
    """The number that models of pictures take besides the text. options: of the input."""
    return io.Float.Input("motion", default=0.0, min=0.0, max=120.0, step=0.5, tooltip=tooltip, **options)


def share(name: str, default: float, tooltip: str) -> io.Input:
    """An optional number from 0 to 1 that few people change."""
    return io.Float.Input(
        name,
        default=default,
        min=0.0,
        max=1.0,
        step=0.01,
        optional=True,
        **newer(io.Float.Input, advanced=True),
        tooltip=tooltip,
    )


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


def sampler(cfg_tooltip: str) -> list[io.Input]:
    """How a latent is denoised: steps, guidance scale, sampler and schedule."""
    return [
        io.Int.Input(
            "steps", default=25, min=1, max=1000, tooltip="More steps are slower and finer; 20 to 50 is usual."
        ),
        cfg(cfg_tooltip),
        io.Combo.Input(
            "sampler_name",
            options=sampler_names(),
            default="ddim",
            tooltip="ddim and dpmpp_2m are good first choices; ddim (eta) samples as VideoCrafter does.",
        ),
        io.Combo.Input(
            "scheduler",
            options=scheduler_names(),
            default=scheduler_names()[0],
            tooltip="The noise levels. diffusers: exactly those that the model was published with, for ddim, "
            "euler, dpmpp_2m, unipc (diffusers) and lcm; align your steps: good with 10 steps; the others are "
            "ComfyUI's.",
        ),
    ]
