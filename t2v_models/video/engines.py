"""The engine that this process uses: ffmpeg's libraries where PyAV is installed, else the ffmpeg program."""

from __future__ import annotations

import functools
import importlib
from typing import cast

from ..errors import T2VError
from .engine import Engine

OLDEST_PYAV = (14, 2)
"""The oldest PyAV that is used: that of the oldest supported ComfyUI."""

_ENGINES = {"pyav": ("pyav", "PyAV"), "ffmpeg": ("ffmpeg", "Program")}
_chosen: str | None = None


def engine() -> Engine:
    """Return the engine in use.

    Raises:
        T2VError: where there is neither PyAV nor a way to the ffmpeg program.
    """
    return _engine(_chosen) if _chosen else _best()


def use(name: str | None) -> None:
    """Choose the engine of this process, "pyav" or "ffmpeg" (the program); None chooses the best one that is there."""
    global _chosen
    if name is not None:
        _engine(name)
    _chosen = name


@functools.cache
def _engine(name: str) -> Engine:
    module, kind = _ENGINES[name]
    return cast(Engine, getattr(importlib.import_module(f".{module}", __package__), kind)())


@functools.cache
def _best() -> Engine:
    try:
        import av

        if tuple(int(part) for part in av.__version__.split(".")[:2]) >= OLDEST_PYAV:
            return _engine("pyav")
    except (ImportError, ValueError):
        pass
    try:
        return _engine("ffmpeg")
    except ImportError as error:  # the registry's package has no part that starts programs
        raise T2VError("No ffmpeg was found: pip install --upgrade av, which brings its libraries.") from error
