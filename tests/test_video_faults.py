"""Faults while a clip is written or read: no file is lost, no unfinished file stays, no process stays."""

from __future__ import annotations

import errno
import gc
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from t2v_models.atomic_output import PREFIX
from t2v_models.errors import T2VError
from t2v_models.video import FORMATS, VideoReader, VideoWriter

from .support.engines import every_engine, program_only  # noqa: F401
from .support.video_clips import coders, natural, some_slow, tone

pytest.importorskip("imageio_ffmpeg")
psutil = pytest.importorskip("psutil")

ROOT = Path(__file__).resolve().parents[1]
CLIP = natural(12, 48, 64)


def write(path, clip=CLIP, fps=24, **options):
    with VideoWriter(path, fps, **options) as video:
        for frame in clip:
            video.write(frame)
    return path


def noise(frames=10_000, side=64):
    return np.random.default_rng(0).integers(0, 256, (8, side, side, 3), np.uint8)[np.arange(frames) % 8]


@pytest.fixture(autouse=True)
def nothing_runs_on():
    """Check after every test that no ffmpeg of this process runs on."""
    yield
    gc.collect()
    assert not coders()


@pytest.mark.parametrize("name", some_slow(FORMATS))
def test_a_cancel_leaves_nothing(tmp_path, name):
    path = tmp_path / f"clip{FORMATS[name].extension}"
    with pytest.raises(KeyboardInterrupt), VideoWriter(path, 24, format=name) as video:  # noqa: PT012
        video.write(CLIP[0])
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_a_writer_without_references_leaves_nothing(tmp_path):
    video = VideoWriter(tmp_path / "clip.mp4", 24)
    video.write(CLIP[0])
    del video
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_no_frames_is_an_error(tmp_path):
    with pytest.raises(T2VError, match="No frame"):
        write(tmp_path / "clip.mp4", [])
    assert not list(tmp_path.iterdir())


def test_a_closed_writer_refuses_frames(tmp_path):
    video = VideoWriter(tmp_path / "clip.mp4", 24)
    video.write(CLIP[0])
    video.close()
    with pytest.raises(T2VError, match="closed"):
        video.write(CLIP[0])
    video.close()
    assert VideoReader(tmp_path / "clip.mp4").info.frame_count == 1


@pytest.mark.parametrize("name", ["h264-mp4", "gif", "png"])
def test_an_older_file_stays_as_it_is(tmp_path, name):
    path = tmp_path / f"clip{FORMATS[name].extension}"
    path.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="not overwritten"):
        VideoWriter(path, 24, format=name)
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]


def test_overwriting_happens_at_the_end_or_not_at_all(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"old")
    video = VideoWriter(path, 24, overwrite=True)
    video.write(CLIP[0])
    assert path.read_bytes() == b"old"
    video.abort()
    assert path.read_bytes() == b"old"
    write(path, overwrite=True)
    assert VideoReader(path).info.frame_count == len(CLIP)


@pytest.mark.parametrize("name", ["h264-mp4", "png"])
def test_two_writers_of_one_name_store_both_clips(tmp_path, name):
    path = tmp_path / f"clip{FORMATS[name].extension}"
    first, second = VideoWriter(path, 24, format=name), VideoWriter(path, 24, format=name)
    for video, clip in ((first, CLIP[:3]), (second, CLIP[:5])):
        for frame in clip:
            video.write(frame)
    places = [second.close(), first.close()]
    assert places == [path, path.with_name("clip (2)" + path.suffix)]
    assert [VideoReader(place).info.frame_count for place in places] == [5, 3]
    assert sorted(tmp_path.iterdir()) == sorted(places)


@pytest.mark.usefixtures("program_only")
@pytest.mark.parametrize("name", ["h264-mp4", "ffv1-mkv", "gif", "webp", "png"])
def test_ffmpeg_killed_under_the_writer_is_a_clear_error(tmp_path, name):
    path = tmp_path / f"clip{FORMATS[name].extension}"

    def frames():
        for n, frame in enumerate(noise()):
            if n == 5:
                coders()[0].kill()
            yield frame

    with pytest.raises(T2VError, match=r"ended from outside.*nothing was saved"):
        write(path, frames(), format=name)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("program_only")
def test_ffmpeg_killed_under_the_reader_is_a_clear_error(tmp_path):
    path = write(tmp_path / "clip.mkv", noise(200, 128))
    frames = iter(VideoReader(path, size=(1024, 1024)))
    next(frames)
    coders()[0].kill()
    with pytest.raises(T2VError, match=r"ended from outside"):
        list(frames)


@pytest.mark.parametrize("name", ["h264-mp4", "ffv1-mkv", "gif", "webp", "png"])
@pytest.mark.parametrize("sound", [False, True])
def test_a_full_disk_is_a_clear_error(small_disk, name, sound):
    if sound and not FORMATS[name].audio:
        pytest.skip("holds no sound")
    old = small_disk / "old.bin"
    old.write_bytes(b"precious" * 230_000)
    audio = tone(9, channels=8) if sound else None
    with pytest.raises((T2VError, OSError), match=r"[Nn]o space"):
        write(small_disk / f"clip{FORMATS[name].extension}", noise(200), format=name, audio=audio)
    assert list(small_disk.iterdir()) == [old]
    assert old.read_bytes() == b"precious" * 230_000


def as_nobody(call) -> str:
    """Return what call() raises in a process of a user without rights."""
    output, entry = os.pipe()
    if not (child := os.fork()):
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            call()
        except Exception as error:
            os.write(entry, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(entry)
    os.waitpid(child, 0)
    with open(output, "rb") as said:
        return said.read().decode()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="needs root, to become a user who may not")
def test_a_folder_without_permission_is_a_clear_error(tmp_path):
    secret = write(tmp_path / "secret.mp4")
    secret.chmod(0o600)
    said = as_nobody(lambda: VideoWriter(tmp_path / "clip.mp4", 24))
    assert said.startswith("PermissionError")
    assert "choose another folder" in said
    said = as_nobody(lambda: VideoReader(secret))
    assert said.startswith("PermissionError")
    assert "no permission to read" in said
    assert list(tmp_path.iterdir()) == [secret]


@pytest.mark.parametrize(
    "name", ["ünï 漢字 😀 ñ", "-y -i x", "a:b", "50% %05d", "'quoted' \"name\"", "new\nline", "[x];y,z=\\", "a" * 251]
)
@pytest.mark.parametrize("ending", [".mp4", ".webp"])
def test_names_of_every_kind_work(tmp_path, name, ending):
    if len(name) > 250 and ending == ".webp":
        pytest.skip("tried with .mp4")
    path = write(tmp_path / "folder of ü" / (name + ending), CLIP[:2])
    assert list(path.parent.iterdir()) == [path]
    assert len(list(VideoReader(path))) == 2


@pytest.mark.parametrize("name", ["x" * 252 + ".mp4", "漢" * 90 + ".mp4", "x" * 5000 + ".mp4"])
def test_names_that_are_too_long_are_refused_at_the_start(tmp_path, name):
    with pytest.raises((T2VError, OSError), match=r"too long|255 are possible"):
        VideoWriter(tmp_path / name, 24)
    assert not list(tmp_path.iterdir())


def test_a_file_in_place_of_a_folder_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="a part of the path is a file"):
        VideoWriter(tmp_path / "file" / "clip.mp4", 24)


@pytest.mark.parametrize(
    "content", [b"", b"x", b"\0" * 5000, b"RIFF\0\0\0\0WEBP", b"GIF89a", b"\x1aE\xdf\xa3", b"#EXTM3U\n"]
)
def test_a_file_that_is_no_video_is_refused(tmp_path, content):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(T2VError, match=r"clip\.mp4"):
        list(VideoReader(path))
    with pytest.raises(FileNotFoundError, match="no such video"):
        VideoReader(tmp_path / "nothing.mp4")


def damaged(data: bytes, generator: random.Random) -> tuple[str, bytes]:
    """Damage bytes in one way: cut off, a stretch of zeros or noise, single flipped bytes, a stretch missing."""
    kind = generator.choice(["cut", "zeros", "noise", "flips", "hole"])
    at, size = generator.randrange(len(data)), generator.randrange(1, max(2, len(data) // 4))
    if kind == "cut":
        return kind, data[:at]
    if kind == "hole":
        return kind, data[:at] + data[at + size :]
    if kind == "flips":
        out = bytearray(data)
        for _ in range(generator.randrange(1, 30)):
            out[generator.randrange(len(out))] ^= generator.randrange(1, 256)
        return kind, bytes(out)
    size = min(size, len(data) - at)
    return kind, data[:at] + (bytes(size) if kind == "zeros" else generator.randbytes(size)) + data[at + size :]


def check_damaged(folder: Path, names: list[str], count: int, seed: int) -> dict[str, int]:
    """Read `count` damaged copies of clips, and count the outcomes: the whole clip, or an error."""
    generator, outcomes = random.Random(seed), {"error": 0, "unharmed": 0}
    originals = {name: write(folder / f"{name}{FORMATS[name].extension}", format=name) for name in names}
    for index in range(count):
        source = originals[names[index % len(names)]]
        kind, data = damaged(source.read_bytes(), generator)
        path = folder / f"damaged{source.suffix}"
        path.write_bytes(data)
        started = time.monotonic()
        try:
            frames = list(VideoReader(path))
        except (T2VError, OSError) as problem:
            error = str(problem)
        else:
            error = None
        if error is not None:
            assert path.name in error, (kind, error)
            assert len(error) > 30
            outcomes["error"] += 1
        else:  # no checksum covers the damage, and every frame is there
            assert frames, kind
            assert all(frame.shape == frames[0].shape for frame in frames), (kind, source.name)
            if kind == "cut":
                assert len(frames) == len(CLIP), f"{source.name}, cut to {len(data)} bytes, gave {len(frames)} frames"
            outcomes["unharmed"] += 1
        assert time.monotonic() - started < 60
        assert path.read_bytes() == data
    return outcomes


def test_damaged_files_are_clear_errors(tmp_path):
    outcomes = check_damaged(tmp_path, ["h264-mp4", "vp9-webm", "ffv1-mkv", "gif", "webp"], 25, seed=1)
    assert outcomes["error"] >= 12, outcomes


@pytest.mark.slow
def test_200_damaged_files_are_clear_errors(tmp_path):
    names = [name for name in FORMATS if FORMATS[name].extension]
    outcomes = check_damaged(tmp_path, names, 200, seed=2)
    assert outcomes["error"] >= 100, outcomes


KILLED = """
import sys, numpy as np
from t2v_models.video import VideoWriter, engines
engines.use(sys.argv[3])
frames = np.random.default_rng(0).integers(0, 256, (8, 96, 96, 3), np.uint8)
n = 0
while True:
    with VideoWriter(f"{sys.argv[1]}/clip-{n}{sys.argv[2]}", 24) as video:
        print("start", n, flush=True)
        for i in range(20):
            video.write(frames[i % 8])
    print("done", n, flush=True)
    n += 1
"""


def kill_writers(folder: Path, times: int, engine_name: str, seed: int = 0) -> int:
    """Kill a process that writes clip after clip at random moments; returns how many clips were whole."""
    generator, whole = random.Random(seed), 0
    before = set(psutil.pids())
    for turn in range(times):
        place = folder / str(turn)
        place.mkdir()
        ending = [".mp4", ".webm", ".mkv", ".gif", ".webp", ""][turn % 6]
        writer = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(place), ending, engine_name], stdout=subprocess.PIPE, cwd=ROOT, text=True
        )
        said = [writer.stdout.readline() for _ in range(generator.randrange(1, 6))]
        time.sleep(generator.uniform(0, 0.3))
        writer.send_signal(signal.SIGKILL)
        done = [line.split()[1] for line in [*said, *writer.stdout.read().splitlines()] if line.startswith("done")]
        writer.wait()
        deadline = time.monotonic() + 180  # ffmpeg writes the frames that it has, then ends
        while left := [pid for pid in set(psutil.pids()) - before if str(place).encode() in command(pid)]:
            assert time.monotonic() < deadline, f"ffmpeg stays behind: {left}"
            time.sleep(0.02)
        clips = [path for path in place.iterdir() if not path.name.startswith(PREFIX)]
        assert {f"clip-{n}{ending}" for n in done} <= {clip.name for clip in clips}, "a finished clip is lost"
        for clip in clips:
            assert VideoReader(clip).info.frame_count == 20, f"{clip} is half-written"
            whole += 1
        write(place / "next.mkv", CLIP[:1])  # removes the files of the killed one
        assert not list(place.glob(PREFIX + "*"))
    return whole


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("times", [2, pytest.param(13, marks=pytest.mark.slow)])
def test_a_killed_writer_leaves_whole_clips_only(tmp_path, times, request):
    engine = request.getfixturevalue("every_engine")
    kill_writers(tmp_path, times if engine == "ffmpeg" else min(times, 6), engine, seed=times)


def test_the_next_writer_removes_a_folder_whose_removal_was_killed(tmp_path, monkeypatch):
    video = VideoWriter(tmp_path / "clip.mp4", 24)
    video.write(CLIP[0])
    (folder,) = tmp_path.glob(PREFIX + "*")
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *_, **__: None)  # killed before its end
        video.close()
    assert [path.name for path in folder.iterdir()] == ["lock"]
    write(tmp_path / "next.mkv", CLIP[:1])
    assert not list(tmp_path.glob(PREFIX + "*"))


def test_unfinished_files_of_a_running_writer_stay(tmp_path):
    video = VideoWriter(tmp_path / "slow.mp4", 24)
    video.write(CLIP[0])
    write(tmp_path / "quick.mp4")
    video.write(CLIP[1])
    video.close()
    assert VideoReader(tmp_path / "slow.mp4").info.frame_count == 2


def test_older_files_stay_on_a_file_system_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    video = VideoWriter(tmp_path / "clip.mp4", 24)
    video.write(CLIP[0])
    (tmp_path / "clip.mp4").write_bytes(b"precious")
    assert video.close() == tmp_path / "clip (2).mp4"
    assert (tmp_path / "clip.mp4").read_bytes() == b"precious"
