"""The engine that starts ffmpeg as a program. The registry's package leaves it out: inside ComfyUI, `pyav` does its work."""

from .process import ffmpeg_exe
from .reading import Program

__all__ = ["Program", "ffmpeg_exe"]
