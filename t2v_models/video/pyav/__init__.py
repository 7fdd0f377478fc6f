"""The engine that uses ffmpeg's libraries in this process, through PyAV, which every ComfyUI brings."""

from .libraries import PyAV

__all__ = ["PyAV"]
