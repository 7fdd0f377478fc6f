"""Inputs that several nodes have, each written once."""

from __future__ import annotations

from comfy_api.latest import io


def model() -> io.Input:
    """The MODEL to work on."""
    return io.Model.Input("model", tooltip="The MODEL of T2VModelLoader.")


def clip() -> io.Input:
    """The CLIP that reads the text."""
    return io.Clip.Input("clip", tooltip="The CLIP of T2VModelLoader.")


def vae() -> io.Input:
    """The VAE between frames and latents."""
    return io.Vae.Input("vae", tooltip="The VAE of T2VModelLoader, or any Stable Diffusion VAE.")


def negative() -> io.Input:
    """What guidance leads away from."""
    return io.Conditioning.Input("negative", tooltip="What it must not show; an empty text is usual.")


def size(tooltip: str) -> list[io.Input]:
    """Width and height in pixels, 0 for a size of the node's choosing; `{side}` in the tooltip is which of the two."""
    return [
        io.Int.Input(side, default=0, min=0, max=8192, step=8, tooltip=tooltip.format(side=side))
        for side in ("width", "height")
    ]


def seed(what: str) -> io.Input:
    """The seed; the host counts it on after each run."""
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
