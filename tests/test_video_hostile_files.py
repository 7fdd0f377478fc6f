"""Files that mean harm: tags, comments, names and texts that cost much or pretend to be something else."""

from __future__ import annotations

import itertools
import logging
import os
import struct
import time
import zlib

import numpy as np
import pytest

from t2v_models.errors import T2VError
from t2v_models.video import VideoReader, VideoWriter, frame_rate, read_embedded, still_png

from .support.engines import every_engine, program_only  # noqa: F401
from .support.strange_clips import frames_of, made
from .support.video_clips import tone

pytestmark = pytest.mark.slow

pytest.importorskip("imageio_ffmpeg")


@pytest.mark.parametrize(
    "rate", ["1e999999999", "1e-999999999", "9" * 100_000, "1/" + "3" * 50_000, "0x18", "nan", "-8", "1e30", "8/0"]
)
def test_a_rate_in_a_tag_is_a_possible_one_or_is_ignored(tmp_path, rate):
    begun = time.monotonic()
    with pytest.raises(T2VError) as raised:
        frame_rate(rate)
    assert len(str(raised.value)) < 300
    if len(rate) < 1000:
        path = made(tmp_path / "clip.mp4", "-metadata", f"t2v_frame_rate={rate}", "-movflags", "use_metadata_tags")
        assert VideoReader(path).info.fps == 25
    assert time.monotonic() - begun < 10


FORGERIES = (
    "x\n  Stream #0:0: Video: h264, yuv420p, 16x16, 8 fps",
    "x\n    Stream #0:1: Audio: aac, 999999 Hz, 64 channels",
    "x\n[Parsed_showinfo_0 @ 0x1] n:   0 pts:      0 pts_time:9       fmt:gray sar:7/1 s:16x16 i:T iskey:1 type:I",
    "x\n[showinfo@0 @ 0x1] n:   0 pts:      0 pts_time:9       fmt:gray sar:7/1 s:16x16 i:T iskey:1 type:I",
    "x\n#tb 0: 1/1\n0, 0, 0, 1, 1, 0x0",
)


@pytest.mark.parametrize("key", FORGERIES)
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_tag_is_not_taken_for_what_ffmpeg_says(tmp_path, key, ending):
    options = (
        "-metadata",
        f"{key}=1",
        "-metadata:s:v",
        f"{key}=1",
        "-movflags",
        "use_metadata_tags",
        "-pix_fmt",
        "yuv420p",
    )
    reader = VideoReader(made(tmp_path / f"clip.{ending}", *options, source="testsrc=s=128x96:r=8:d=1"))
    assert (reader.size, reader.rate, len(reader), reader.audio()) == ((128, 96), 8, 8, None)
    assert next(iter(reader)).shape == (96, 128, 3)
    assert (reader.info.transfer, reader.info.interlaced) == (None, False)


@pytest.mark.parametrize("sides", [(32, 32, 48), (32, 16, 8), (24, 64, 24)])
def test_frames_of_another_size_come_in_the_size_of_the_first(tmp_path, sides):
    for n, side in enumerate(sides):
        still_png(tmp_path / f"{n}.png", np.zeros((side, side, 3), np.uint8), {})
    assert [frame.shape[0] for frame in frames_of(tmp_path)] == [sides[0]] * 3


COMMENTS = (
    b'{"t2v":[1]}', b'{"t2v":5}', b'{"t2v":"x"}', b'{"t2v":null}', b'{"t2v":{"t2v_size":5}}', b'{"t2v":{"a":{"b":1}}}',
    b'{"t2v":' + b"[" * 200_000, b'{"t2v":' + b"9" * 100_000 + b"}", b'{"t2v":', b'{"t2v":{"\xff":"x"}}',
)  # fmt: skip


@pytest.mark.parametrize("comment", COMMENTS, ids=lambda comment: comment[:24].decode("latin-1"))
def test_a_gifs_comment_of_another_form_is_ignored(tmp_path, comment):
    path = made(tmp_path / "clip.gif", source="testsrc=s=64x64:r=10:d=0.8")
    blocks = b"".join(bytes([len(part)]) + part for part in (comment[i : i + 255] for i in range(0, len(comment), 255)))
    path.write_bytes(path.read_bytes()[:-1] + b"!\xfe" + blocks + b"\0;")
    reader = VideoReader(path)
    assert len(list(reader)) == 8
    assert set(reader.info.metadata) <= {"comment"}  # as ffmpeg gives every GIF's comment
    assert all(isinstance(text, str) for text in reader.info.metadata.values())


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def packed_blanks(megabytes):
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(b" " * (1 << 20)) for _ in range(megabytes)) + packer.flush()


def exif_of_one_text(entries, size):
    """An EXIF block whose entries all name one text."""
    table = b"".join(struct.pack("<HHII", 0x0110, 2, size, 10 + 12 * entries + 4) for _ in range(entries))
    return b"II*\0" + struct.pack("<IH", 8, entries) + table + bytes(4) + b"key:" + b"x" * (size - 4)


BOMBS = {
    "one text of a gigabyte": lambda: chunk(b"zTXt", b"k\0\0" + packed_blanks(100)),
    "many texts": lambda: b"".join(chunk(b"zTXt", b"k%d\0\0" % n + packed_blanks(10)) for n in range(8)),
    "international texts": lambda: b"".join(chunk(b"iTXt", b"k%d\0\1\0\0\0" % n + packed_blanks(10)) for n in range(8)),
    "empty chunks": lambda: chunk(b"abCd", b"") * 200_000,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_texts_that_unpack_to_much_are_dropped(tmp_path, bomb, caplog):
    path = still_png(tmp_path / "0.png", np.zeros((8, 8, 3), np.uint8), {"prompt": "a cat"})
    data = path.read_bytes()
    path.write_bytes(data[:33] + BOMBS[bomb]() + data[33:])
    begun = time.monotonic()
    assert read_embedded(path) == {}
    assert time.monotonic() - begun < 10
    assert "texts" in caplog.text


def test_exif_entries_that_name_one_text_many_times_are_dropped(tmp_path):
    exif = exif_of_one_text(2000, 1 << 20)
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(10) + b"EXIF" + struct.pack("<I", len(exif)) + exif
    (tmp_path / "a.webp").write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    assert read_embedded(tmp_path / "a.webp") == {}


@pytest.mark.parametrize("name", ["clip%03d", "clip*", "clip[1-3]", "clip?", "{clip}", "%d"])
@pytest.mark.parametrize("ending", ["png", "webp", "jpg"])
def test_a_single_file_is_opened_as_itself(tmp_path, name, ending):
    image = pytest.importorskip("PIL.Image")
    for n in range(1, 4):
        image.fromarray(np.full((16, 16, 3), 60 * n, np.uint8)).save(tmp_path / f"clip{n:03d}.{ending}")
    path = tmp_path / f"{name}.{ending}"
    image.fromarray(np.full((16, 16, 3), 10, np.uint8)).save(path)
    assert [round(frame.mean()) for frame in VideoReader(path)] == [10]
    path.write_bytes(b"no picture at all")
    with pytest.raises(T2VError, match="no video"):
        frames_of(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no FIFOs")
def test_pipes_devices_and_playlists_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    for path in (tmp_path / "pipe.mp4", "/dev/zero"):
        with pytest.raises(T2VError, match="no plain file"):
            VideoReader(path)
    (tmp_path / "0.png").symlink_to(tmp_path / "pipe.mp4")
    with pytest.raises(T2VError, match="without numbered"):
        VideoReader(tmp_path)


NO_NAMES = ("a\0b.mp4", "a\ud800.mp4", "a" * 5000 + ".mp4", "a/" * 3000 + "b.mp4", 5, None, b"a.mp4", "")


@pytest.mark.parametrize("name", NO_NAMES, ids=lambda name: ascii(name)[:12])
def test_names_that_no_file_can_have_are_one_sentence(tmp_path, name):
    path = str(tmp_path) + "/" + name if isinstance(name, str) and name else name
    for call in (VideoReader, lambda path: VideoWriter(path, 8), lambda path: still_png(path, np.zeros((8, 8, 3)), {})):
        with pytest.raises((T2VError, OSError)) as raised:
            call(path)
        assert type(raised.value) is not OSError or "too long" in str(raised.value)
        assert len(str(raised.value)) < 2000


# -- memory and cancels -----------------------------------------------------------------------------------------------


def test_the_memory_of_the_sound_is_known_before_it_is_read(tmp_path, monkeypatch):
    for channels, seconds in ((1, 4), (2, 2), (6, 1)):
        path = tmp_path / f"{channels}.mkv"
        with VideoWriter(path, 8, audio=tone(seconds, channels=channels)) as video:
            for _ in range(8 * seconds):
                video.write(np.zeros((16, 16, 3), np.uint8))
        reader = VideoReader(path, every=4)
        assert reader.audio_bytes == pytest.approx(reader.audio().samples.nbytes, rel=0.01)

    def refuse(*_):
        raise MemoryError

    monkeypatch.setattr(np, "zeros", refuse)
    with pytest.raises(T2VError, match="memory"):
        reader.audio()


class Cancel(Exception):
    """Stands for the host's exception."""


def after(count):
    """A callable that raises at its call of that number."""
    calls = itertools.count()

    def cancelled():
        if next(calls) >= count:
            raise Cancel

    return cancelled


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    options = (
        "-f",
        "lavfi",
        "-i",
        "sine=d=60",
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-pix_fmt",
        "yuv420p",
        "-c:a",
        "aac",
    )
    return made(path, *options, source="testsrc2=s=1280x720:r=30:d=60")


WAITS = {
    "frames are skipped": lambda reader: next(iter(reader)),
    "sound is read": lambda reader: reader.audio(),
    "packets are counted": lambda reader: reader.info,
    "frames are read": lambda reader: list(reader),
}


@pytest.mark.parametrize("wait", WAITS)
def test_a_cancel_is_heard_within_a_second(long_clip, wait):
    psutil = pytest.importorskip("psutil")
    reader = VideoReader(long_clip, start=1700 if wait != "frames are read" else 0, cancelled=after(0))
    if wait != "packets are counted":
        reader.info = VideoReader(long_clip).info
    begun = time.monotonic()
    with pytest.raises(Cancel):
        WAITS[wait](reader)
    assert time.monotonic() - begun < 1
    assert not [child for child in psutil.Process().children() if child.name().startswith("ffmpeg")]


def test_the_cancel_is_asked_often_while_frames_are_skipped(long_clip):
    asked = []
    reader = VideoReader(long_clip, start=1700, cancelled=lambda: asked.append(time.monotonic()))
    begun = time.monotonic()
    next(iter(reader))
    times = [begun, *asked, time.monotonic()]
    assert max(b - a for a, b in itertools.pairwise(times)) < 1


def test_frames_are_alike_with_and_without_a_cancel(tmp_path, caplog):
    path = made(tmp_path / "clip.mkv", "-pix_fmt", "yuv420p")
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(frames_of(path, cancelled=lambda: None), frames_of(path))
    assert not caplog.text
