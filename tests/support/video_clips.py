"""Generated clips, sound and metadata for the video tests."""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np
import pytest

NOTE = "q\"uo'te; #x = \\ {[ 漢字 😀 \r\n\ttab\u2028 é"
WORKFLOW = json.dumps({"nodes": [], "note": NOTE}, ensure_ascii=False) + "\n;#=\\\n\r"
"""Metadata with every character that a container or ffmpeg could lose."""


QUICK = ("h264-mp4", "vp9-webm", "ffv1-16bit-mkv", "gif", "webp", "png")
"""One format of each kind, for the quick part of the tests."""


def some_slow(names: Iterable[str]) -> list:
    """Test parameters: formats outside `QUICK` are marked as slow."""
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


def natural(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """(frames, h, w, 3) uint8: an image with the 1/f spectrum of photographs, panned by fractions of a pixel."""
    random = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    decay = 1 / np.maximum(np.hypot(fy, fx), 1 / max(height, width)) ** 1.8
    grey, hue = (np.fft.fft2(random.standard_normal((3, height, width))) * decay for _ in range(2))
    spectrum = grey[:1] + 0.3 * hue  # colours vary less than brightness, as in photographs
    clip = []
    for t in range(frames):
        shift = np.exp(-2j * np.pi * (fy * 0.4 * t + fx * 0.9 * t))
        picture = np.fft.ifft2(spectrum * shift).real
        picture = (picture - picture.mean()) / picture.std() * 45 + 120
        clip.append(np.clip(np.rint(picture), 0, 255).astype(np.uint8).transpose(1, 2, 0))
    return np.stack(clip)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two uint8 clips in dB, over all pixels and channels."""
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def tone(seconds: float, rate: int = 48000, channels: int = 2) -> dict:
    """Soft noise as ComfyUI's AUDIO dictionary; all its parts differ, so a shift is detected."""
    noise = np.random.default_rng(3).standard_normal(round(seconds * rate) + 15)
    wave = np.convolve(noise, np.hanning(16) / 16, "valid").astype(np.float32)
    return {"waveform": np.stack([wave * (1 - 0.5 * c) for c in range(channels)])[None], "sample_rate": rate}


def coders() -> list:
    """Running ffmpeg processes that this process started; others, such as a ComfyUI server's, are left out."""
    import psutil

    gone = (psutil.NoSuchProcess, psutil.ZombieProcess)
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if child.name().startswith("ffmpeg") and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
        except gone:
            continue
    return found
