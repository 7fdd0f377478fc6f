"""The ffmpeg program and its libraries in this process do the same: each reads what the other has written, to the bit."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from t2v_models.errors import T2VError
from t2v_models.video import FORMATS, VideoReader, VideoWriter, engines
from t2v_models.video.ffmpeg import process

from .support.strange_clips import made
from .support.video_clips import natural, psnr, some_slow, tone

av = pytest.importorskip("av")
pytest.importorskip("imageio_ffmpeg")

ROOT = Path(__file__).resolve().parents[1]
BOTH = ("ffmpeg", "pyav")
LIBRARIES = av.library_versions["libavcodec"][:2]
CLIP = natural(6, 50, 66)
TEXTS = {"prompt": "a cat", "workflow": '{"nodes": []}'}


@pytest.fixture(autouse=True)
def engine_of_choice() -> Iterator[None]:
    yield
    engines.use(None)


def write(path: Path, name: str, engine: str, **options) -> Path:
    engines.use(engine)
    path = path / f"{engine}{FORMATS[name].extension}"
    with VideoWriter(path, 12, format=name, metadata=TEXTS, **options) as video:
        for frame in CLIP:
            video.write(frame)
    return path


def read(path: Path, engine: str, **options):
    """What a reader says of a clip, its frames and its sound."""
    engines.use(engine)
    reader = VideoReader(path, **options)
    return reader.info, np.stack(list(reader)), reader.audio()


@pytest.mark.parametrize("name", some_slow(FORMATS))
def test_both_engines_write_and_read_each_format_alike(tmp_path, name):
    sound = tone(0.5) if FORMATS[name].audio else None
    qualities = []
    for writer in BOTH:
        path = write(tmp_path, name, writer, audio=sound)
        (info, frames, audio), (other_info, other_frames, other_audio) = (read(path, reader) for reader in BOTH)
        qualities.append(psnr(frames, CLIP))
        assert info.metadata == other_info.metadata == TEXTS
        assert (audio is None) == (other_audio is None) == (sound is None)
        if sound:
            assert audio.rate == other_audio.rate
            rounding = 0 if process.version(process.ffmpeg_exe()) >= LIBRARIES else 1e-7  # of older decoders of sound
            assert np.abs(audio.samples - other_audio.samples).max() <= rounding
        if name == "webp":  # Pillow's decoder enlarges colours by another filter
            assert np.abs(frames.astype(int) - other_frames).max() <= 12
        else:
            assert info == other_info
            assert np.array_equal(frames, other_frames)
    assert qualities[0] == pytest.approx(qualities[1], abs=0.6)


CLIPS = {
    "turned.mp4": (["-c:v", "copy"], ["-display_rotation:v:0", "90"]),
    "wide.mp4": (["-vf", "setsar=4/3", "-pix_fmt", "yuv420p"], []),
    "variable.mkv": (["-vf", "select=not(mod(n\\,3))+not(mod(n\\,7))", "-fps_mode", "vfr", "-pix_fmt", "yuv420p"], []),
    "fields.mkv": (["-vf", "tinterlace=interleave_top", "-c:v", "ffv1", "-pix_fmt", "yuv420p"], []),
    "full.mp4": (["-vf", "scale=out_range=pc", "-pix_fmt", "yuvj420p"], []),
    "hdr.mkv": (["-vf", "format=yuv420p10le,setparams=color_trc=smpte2084:colorspace=bt2020nc", "-c:v", "ffv1"], []),
    "alpha.mov": (["-pix_fmt", "argb", "-c:v", "qtrle"], []),
    "old.avi": (["-c:v", "mpeg4", "-bf", "2"], []),
    "stream.ts": (["-c:v", "mpeg2video"], []),
    "moving.apng": (["-f", "apng"], []),
}
"""Clips that ask for something: name -> ffmpeg's options of its output, and those before its input."""


@pytest.mark.parametrize(
    "name", [n if n in ("wide.mp4", "variable.mkv") else pytest.param(n, marks=pytest.mark.slow) for n in CLIPS]
)
@pytest.mark.parametrize("options", [{}, {"fps": 10, "start": 1, "every": 2}, {"depth": 16, "size": (40, 0)}], ids=str)
def test_what_a_clip_asks_for_is_applied_alike(tmp_path, name, options):
    after, before = CLIPS[name]
    if before:
        plain = made(tmp_path / "plain.mp4", "-pix_fmt", "yuv420p")
        path = made(tmp_path / name, *after, source=None, before=[*before, "-i", plain])
    else:
        path = made(tmp_path / name, *after, source="testsrc=s=64x48:r=25:d=0.8")
    (info, frames, _), (other_info, other_frames, _) = (read(path, engine, **options) for engine in BOTH)
    assert info == other_info
    assert frames.dtype == other_frames.dtype
    first = 1 if info.interlaced else 0  # ffmpeg 9 joins the first two fields otherwise than ffmpeg 4 to 8
    assert np.array_equal(frames[first:], other_frames[first:])


def test_the_libraries_are_preferred_and_the_program_follows(monkeypatch):
    engines.use(None)
    assert engines.engine().name.startswith("PyAV")
    for broken in ("9.0.0", "unknown"):
        monkeypatch.setattr(av, "__version__", broken)
        engines._best.cache_clear()
        assert engines.engine().name.startswith("The ffmpeg at")
    monkeypatch.undo()
    engines._best.cache_clear()
    assert engines.engine().name.startswith("PyAV")


def test_without_either_one_sentence_says_what_to_install(monkeypatch):
    engines._best.cache_clear()
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr(engines, "_engine", lambda name: __import__("a_module_that_is_left_out"))
    with pytest.raises(T2VError, match=r"^No ffmpeg was found: pip install --upgrade av") as caught:
        engines.engine()
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    engines._best.cache_clear()


def test_importing_the_library_imports_no_engine():
    code = "import sys, t2v_models.video; sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.slow
def test_the_libraries_leave_pyavs_settings_and_the_terminal_alone(tmp_path):
    """A damaged clip, a refused one, and encoders that print: not a line, and other users of PyAV find what they set."""
    code = """
        import sys, numpy as np, av, av.logging
        from t2v_models.errors import T2VError
        from t2v_models.video import FORMATS, VideoReader, VideoWriter, engines
        import logging
        logging.getLogger("t2v_models").setLevel(logging.CRITICAL)
        engines.use("pyav")
        for before in (None, av.logging.FATAL):
            av.logging.set_level(before)
            for name in ("h264-mp4", "h265-mp4", "av1-webm", "vp9-webm", "webp"):
                path = sys.argv[1] + f"/{name}{FORMATS[name].extension}"
                with VideoWriter(path, 8, format=name, overwrite=True) as video:
                    for k in range(12):
                        video.write(np.random.default_rng(k).integers(0, 255, (64, 64, 3)).astype(np.uint8))
                data = bytearray(open(path, "rb").read())
                data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
                open(path, "wb").write(data)
                try:
                    list(VideoReader(path, strict=False))
                except T2VError:
                    pass
            open(sys.argv[1] + "/text.mp4", "w").write("no video" * 100)
            try:
                VideoReader(sys.argv[1] + "/text.mp4").info
            except T2VError:
                pass
            assert av.logging.get_level() == before
            assert av.logging.get_skip_repeated()
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_damaged_clip_is_told_from_a_whole_one_that_is_read_beside_it(tmp_path):
    """Both engines' messages are their own, though PyAV's log is the process's."""
    whole = write(tmp_path, "h264-mp4", "pyav")
    data = bytearray(whole.read_bytes())
    at = data.index(b"mdat") + 600
    data[at : at + 300] = bytes(300)
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(data)
    errors = []

    def try_damaged() -> None:
        for _ in range(8):
            try:
                list(VideoReader(damaged))
            except T2VError as error:
                errors.append(str(error))

    thread = threading.Thread(target=try_damaged)
    thread.start()
    while thread.is_alive():
        assert len(list(VideoReader(whole))) == len(CLIP)
    thread.join()
    assert len(errors) == 8
    assert all("damaged.mp4 is" in error and "NAL" in error for error in errors)


def test_an_aborted_writer_of_the_libraries_leaves_nothing_and_ends_its_thread(tmp_path):
    engines.use("pyav")
    before = threading.active_count()
    video = VideoWriter(tmp_path / "a.mp4", 8)
    video.write(CLIP[0])
    video.abort()
    frames = iter(VideoReader(write(tmp_path, "ffv1-mkv", "pyav")))
    next(frames)
    frames.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert [path.name for path in tmp_path.iterdir()] == ["pyav.mkv"]


def test_a_frame_may_be_changed_once_it_is_written(tmp_path):
    engines.use("pyav")
    frame = np.zeros((48, 64, 3), np.uint8)
    with VideoWriter(tmp_path / "a.mkv", 8, format="ffv1-mkv") as video:
        for number in range(8):
            frame[:] = number * 30
            video.write(frame)
            frame[:] = 255
    assert [int(frame.max()) for frame in VideoReader(tmp_path / "a.mkv")] == [number * 30 for number in range(8)]


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX's file names")
def test_names_that_ffmpeg_takes_for_patterns_are_files_to_the_libraries(tmp_path, caplog):
    path = write(tmp_path, "h264-mp4", "ffmpeg")
    for name in ("100%d.mp4", "a:b.mp4", "-i.mp4", "[x]{y}*.mp4", "concat:a.mp4"):
        path = path.rename(tmp_path / name)
        with caplog.at_level(logging.WARNING):
            assert len(read(path, "pyav")[1]) == len(CLIP)


@pytest.mark.parametrize("engine", BOTH)
def test_a_cancel_is_raised_as_what_it_is(tmp_path, engine):
    """Even one of a kind that ffmpeg's libraries raise themselves."""
    path = write(tmp_path, "h264-mp4", "ffmpeg")
    engines.use(engine)

    def cancelled() -> None:
        raise ValueError("cancelled")

    with pytest.raises(ValueError, match=r"^cancelled$"):
        list(VideoReader(path, cancelled=cancelled))
    writer = VideoWriter(tmp_path / "b.mp4", 8, cancelled=cancelled)
    with pytest.raises(ValueError, match=r"^cancelled$"):
        write_all(writer)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def write_all(writer: VideoWriter) -> None:
    with writer as video:
        for frame in CLIP:
            video.write(frame)
