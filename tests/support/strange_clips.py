"""Clips that ffmpeg makes of its test sources, and their frames."""

from __future__ import annotations

import subprocess

from t2v_models.video import VideoReader
from t2v_models.video.ffmpeg import process as ffmpeg_module


def made(path, *options, source="testsrc=s=64x48:r=25:d=0.4", before=()):
    """Make a file with ffmpeg itself."""
    inputs = ["-f", "lavfi", "-i", source] if source else []
    command = [ffmpeg_module.ffmpeg_exe(), "-v", "error", "-y", *before, *inputs, *options, path]
    subprocess.run([str(part) for part in command], check=True, stdin=subprocess.DEVNULL)
    return path


def frames_of(path, **options):
    """All frames of a file."""
    return list(VideoReader(path, **options))
