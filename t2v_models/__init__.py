"""Text-to-video latent diffusion models with a 3D UNet: load, inspect, convert, sample, write video.

Everything public is imported from here; nothing heavy is imported until it is used.
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "Film": ".films.film",
    "UNet3D": ".unet",
    "UNetConfig": ".unet",
    "VideoReader": ".video",
    "VideoWriter": ".video",
    "inspect": ".checkpoints",
    "load_pipeline": ".loading",
    "load_unet": ".checkpoints",
    "load_zero_shot": ".zero_shot.loading",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
