"""The engine that uses ffmpeg's libraries in this process, through PyAV, which every ComfyUI brings."""

from .reading import PyAV

__all__ = ["PyAV"]
