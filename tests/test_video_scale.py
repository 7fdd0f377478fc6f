"""Long clips: memory does not grow, and the faster side waits for the slower one."""

from __future__ import annotations

import gc
import threading
import time

import numpy as np
import pytest

from t2v_models.video import VideoReader, VideoWriter

from .support.engines import every_engine, program_only  # noqa: F401
from .support.video_clips import coders, natural

pytest.importorskip("imageio_ffmpeg")
psutil = pytest.importorskip("psutil")


def held() -> float:
    """Return the memory of this process, in MB."""
    gc.collect()
    return psutil.Process().memory_info().rss / 1e6


def drifting(frames: int, side: int):
    wide = natural(1, side, 2 * side)[0]
    for n in range(frames):
        yield wide[:, n % side : n % side + side]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["h264-mp4", "webp", "ffv1-mkv"])
def test_memory_does_not_grow_with_the_length(tmp_path, name):
    path = tmp_path / {"h264-mp4": "a.mp4", "webp": "a.webp", "ffv1-mkv": "a.mkv"}[name]
    marks = []
    with VideoWriter(path, 24, format=name) as video:
        for n, frame in enumerate(drifting(800, 128)):
            video.write(frame)
            if n in (100, 799):
                marks.append(held())
    for n, _ in enumerate(VideoReader(path)):
        if n in (100, 799):
            marks.append(held())
    assert n == 799
    wrote, read = marks[1] - marks[0], marks[3] - marks[2]
    assert wrote < 10, f"writing 700 frames (34 MB) took {wrote:.1f} MB"
    assert read < 10, f"reading 700 frames (34 MB) took {read:.1f} MB"


@pytest.mark.slow
@pytest.mark.usefixtures("program_only")
def test_the_writer_waits_for_ffmpeg(tmp_path):
    """Back-pressure: frames must not pile up in memory."""
    clip = np.zeros((40, 256, 256, 3), np.uint8)
    video = VideoWriter(tmp_path / "a.mkv", 24)
    video.write(clip[0])
    (ffmpeg,) = coders()
    ffmpeg.suspend()
    try:
        thread = threading.Thread(target=lambda: [video.write(frame) for frame in clip[1:]])
        thread.start()
        time.sleep(0.5)
        assert video.frames <= 1 + 6 + 1, "more frames were taken than a pipe of 1 MB holds"
        assert thread.is_alive()
    finally:
        ffmpeg.resume()
    thread.join(60)
    video.close()
    assert VideoReader(tmp_path / "a.mkv").info.frame_count == 40


@pytest.mark.slow
@pytest.mark.usefixtures("program_only")
def test_ffmpeg_waits_for_the_reader(tmp_path):
    path = tmp_path / "a.mkv"
    with VideoWriter(path, 24) as video:
        for frame in np.zeros((200, 256, 256, 3), np.uint8):
            video.write(frame)
    frames = iter(VideoReader(path))
    next(frames)
    before = held()
    time.sleep(0.3)
    assert held() - before < 5
    assert coders(), "ffmpeg has ended: it has decoded everything into memory"
    assert sum(1 for _ in frames) == 199


def test_frames_are_arrays_of_their_own(tmp_path):
    """Every frame is an array of its own, not a view of one buffer."""
    path = tmp_path / "a.mkv"
    with VideoWriter(path, 24) as video:
        for value in (10, 20, 30):
            video.write(np.full((32, 32, 3), value, np.uint8))
    kept = list(VideoReader(path))
    kept[0][:] = 99
    assert [int(frame[0, 0, 0]) for frame in kept] == [99, 20, 30]
