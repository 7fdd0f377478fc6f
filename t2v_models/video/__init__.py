"""Read and write video files, frame by frame through ffmpeg, with sound and metadata."""

from .audio import Audio, to_audio
from .engine import AudioInfo
from .formats import DEFAULT_QUALITY, FORMATS, Format, available_formats, check_rate, check_size, format_of
from .frame_rate import frame_rate
from .metadata import embed, json_text, read_embedded
from .png import still_png
from .probe import VideoInfo
from .reader import VideoReader
from .source import holds_pictures
from .writer import VideoWriter

__all__ = [
    "DEFAULT_QUALITY",
    "FORMATS",
    "Audio",
    "AudioInfo",
    "Format",
    "VideoInfo",
    "VideoReader",
    "VideoWriter",
    "available_formats",
    "check_rate",
    "check_size",
    "embed",
    "format_of",
    "frame_rate",
    "holds_pictures",
    "json_text",
    "read_embedded",
    "still_png",
    "to_audio",
]
