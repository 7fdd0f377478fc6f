"""The engine that this process uses: the ffmpeg program."""

from __future__ import annotations

from .engine import Engine
from .program import Program

_PROGRAM = Program()


def engine() -> Engine:
    """Return the engine in use."""
    return _PROGRAM
