"""Files of other programs: what is whole is read as it asks, what is not is one sentence."""

from __future__ import annotations

import os
import struct

import numpy as np
import pytest

from t2v_models.errors import T2VError
from t2v_models.video import VideoReader, VideoWriter
from t2v_models.video.ffmpeg import process as ffmpeg_module

from .support.engines import every_engine, program_only  # noqa: F401
from .support.strange_clips import frames_of, made
from .support.video_clips import natural, tone

pytestmark = pytest.mark.slow

pytest.importorskip("imageio_ffmpeg")


CONTAINERS = {
    "mp4": ("-pix_fmt", "yuv420p"),
    "mov": ("-pix_fmt", "yuv420p"),
    "fragments.mp4": ("-pix_fmt", "yuv420p", "-movflags", "frag_keyframe+empty_moov"),
    "mkv": ("-pix_fmt", "yuv420p"),
    "webm": ("-c:v", "libvpx-vp9", "-deadline", "realtime"),
    "gif": (),
    "webp": ("-c:v", "libwebp_anim"),
    "png": ("-frames:v", "1"),
    "apng": ("-f", "apng"),
    "avi": ("-c:v", "mpeg4"),
    "ts": ("-c:v", "libx264", "-pix_fmt", "yuv420p"),
    "flv": (),
}
TAILS = {"line end": b"\r\n", "three zeros": bytes(3), "camera": b"\x8d\xb4" * 200 + b"8db42d694ccc4187"}


@pytest.mark.parametrize("ending", CONTAINERS)
def test_bytes_behind_a_whole_file_are_ignored(tmp_path, ending):
    path = made(tmp_path / f"clip.{ending}", *CONTAINERS[ending])
    whole, data = frames_of(path), path.read_bytes()
    for name, tail in TAILS.items():
        path.write_bytes(data + tail)
        assert np.array_equal(frames_of(path), whole), name


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "webm", "gif", "webp", "png", "apng", "avi"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_a_file_that_lacks_pictures_is_cut_off_and_is_read_where_that_is_asked(tmp_path, ending, part):
    path = made(tmp_path / f"clip.{ending}", *CONTAINERS[ending])
    data = path.read_bytes()
    path.write_bytes(data[: round(len(data) * part)])
    with pytest.raises(T2VError, match="cut off"):
        frames_of(path)
    if ending in ("mkv", "webm", "gif", "avi") and part == 0.9:
        assert 1 <= len(frames_of(path, strict=False)) <= 10


@pytest.mark.parametrize("box", [b"moov", b"mdat"])
def test_an_mp4_without_a_needed_box_is_cut_off(tmp_path, box):
    path = made(tmp_path / "clip.mp4", *CONTAINERS["mp4"])
    data = path.read_bytes()
    path.write_bytes(data.replace(box, b"free", 1))
    with pytest.raises(T2VError, match="cut off"):
        VideoReader(path)


def test_an_mp4_whose_last_unneeded_box_is_cut_is_whole(tmp_path):
    path = made(tmp_path / "clip.mp4", *CONTAINERS["mp4"])
    path.write_bytes(path.read_bytes() + struct.pack(">I4s", 5000, b"free") + bytes(10))
    assert len(frames_of(path)) == 10


# -- what a file says of its pictures ---------------------------------------------------------------------------------


def hdr(path, curve, signal, colour="white"):
    level = f"lutrgb=r=val*{signal}:g=val*{signal}:b=val*{signal}"
    source = (
        f"color={colour}:s=64x64:r=25:d=0.2,format=gbrp16le,{level},scale=out_color_matrix=bt2020,format=yuv420p10le"
    )
    names = f"setparams=range=tv:colorspace=bt2020nc:color_primaries=bt2020:color_trc={curve}"
    return made(path, "-c:v", "ffv1", source=f"{source},{names}")


@pytest.mark.parametrize(
    ("curve", "signal", "wanted"),
    [
        ("smpte2084", 0.5806, 255), ("smpte2084", 0.4, 119), ("smpte2084", 0.2, 40), ("smpte2084", 0, 0), ("smpte2084", 1, 255),
        ("arib-std-b67", 0.75, 255), ("arib-std-b67", 0.5, 142), ("arib-std-b67", 0, 0),
    ],
)  # fmt: skip
def test_hdr_is_tone_mapped_so_that_white_is_white(tmp_path, caplog, curve, signal, wanted):
    """The numbers for PQ are those of zimg: zscale=t=linear:npl=203, tonemap=clip, zscale=t=bt709."""
    frame = frames_of(hdr(tmp_path / "clip.mkv", curve, signal))[0]
    assert np.abs(frame.astype(int) - wanted).max() <= 3
    assert "HDR" in caplog.text


def test_colours_of_hdr_are_those_of_the_narrower_primaries(tmp_path):
    frame = frames_of(hdr(tmp_path / "clip.mkv", "smpte2084", 0.5, "0x00ff00"))[0]
    assert np.abs(frame[32, 32].astype(int) - (0, 194, 0)).max() <= 4


@pytest.mark.parametrize(
    ("aspect", "wanted"), [("2", (128, 48)), ("8/9", (57, 48)), ("1", (64, 48)), ("1/2", (32, 48))]
)
def test_pixels_that_are_not_square_become_square(tmp_path, aspect, wanted):
    path = made(tmp_path / "clip.mp4", "-pix_fmt", "yuv420p", source=f"testsrc=s=64x48:r=25:d=0.2,setsar={aspect}")
    reader = VideoReader(path)
    assert reader.size == wanted == next(iter(reader)).shape[1::-1]


TURNS = {
    "quarter": (("-display_rotation", "90"), lambda frame: np.rot90(frame)),
    "half": (("-display_rotation", "180"), lambda frame: frame[::-1, ::-1]),
    "mirrored": (("-display_hflip",), lambda frame: frame[:, ::-1]),
    "upside down": (("-display_vflip",), lambda frame: frame[::-1]),
}


@pytest.mark.parametrize("turn", TURNS)
def test_a_clip_is_turned_and_mirrored_as_it_asks(tmp_path, turn):
    options, expected = TURNS[turn]
    plain = made(tmp_path / "plain.mp4", "-pix_fmt", "yuv420p")
    path = made(tmp_path / "clip.mp4", "-c", "copy", source=None, before=(*options, "-i", plain))
    wanted = expected(frames_of(plain)[0]).astype(int)
    got = frames_of(path)[0]
    assert got.shape == wanted.shape
    assert np.abs(got.astype(int) - wanted).mean() < 8  # the colours of neighbouring rows are shared


SHOWN = {
    "a still": "lt(t,1)+gte(t,3)",
    "every third frame missing": "mod(n,3)",
    "slow at the end": "lt(t,3)+not(mod(n,5))",
}


@pytest.mark.parametrize("shown", SHOWN)
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_picture_and_sound_stay_in_step_where_the_rate_varies(tmp_path, caplog, shown, ending):
    flash = "color=black:s=64x48:r=25:d=4,geq=lum='if(gte(T,3),235,16)':cb=128:cr=128"
    sound = ("-f", "lavfi", "-i", "aevalsrc='if(gte(t,3),sin(880*2*PI*t),0)':d=4", "-c:a", "aac", "-pix_fmt", "yuv420p")
    rate = ffmpeg_module.every_frame()
    path = made(tmp_path / f"clip.{ending}", *sound, *rate, source=f"{flash},select='{SHOWN[shown]}'")
    reader = VideoReader(path)
    frames = list(reader)
    bright = next(n for n, frame in enumerate(frames) if frame.mean() > 100) / reader.rate
    audio = reader.audio()
    heard = int((np.abs(audio.samples[0]) > 0.1).argmax()) / audio.rate
    assert abs(float(bright) - heard) < 0.1
    assert len(frames) == len(reader)
    if shown == "a still":
        assert (reader.rate, len(reader)) == (25, 100)
        assert "variable" in caplog.text


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
@pytest.mark.parametrize("times", [[100, 500, 100, 100], [40, 40, 300, 40], [1000, 50, 50, 50], [30, 40, 200, 20]])
def test_pictures_that_are_shown_for_different_times_are_read_once_each(tmp_path, ending, times):
    image = pytest.importorskip("PIL.Image")
    first, *others = [image.fromarray(frame) for frame in natural(4, 32, 32)]
    first.save(tmp_path / f"a.{ending}", save_all=True, append_images=others, duration=times, loop=0)
    assert len(frames_of(tmp_path / f"a.{ending}")) == 4


def test_fields_are_joined_and_progressive_frames_stay(tmp_path, caplog):
    source = "testsrc2=s=64x48:r=50:d=0.4"
    woven = made(
        tmp_path / "woven.mkv", "-flags", "+ildct+ilme", "-c:v", "mpeg2video", "-q:v", "2", source=f"{source},interlace"
    )
    frames = frames_of(woven)
    assert len(frames) == 10
    assert "interlaced" in caplog.text
    comb = [np.abs(np.diff(frame.astype(int), axis=0)).mean() for frame in frames]
    smooth = made(tmp_path / "plain.mkv", "-c:v", "mpeg2video", "-q:v", "2", source=source)
    plain = [np.abs(np.diff(frame.astype(int), axis=0)).mean() for frame in frames_of(smooth)]
    assert np.mean(comb) < 1.2 * np.mean(plain)
    assert caplog.text.count("interlaced") == 1


@pytest.mark.parametrize(("codec", "pixels"), [("ffv1", "yuv420p"), ("mjpeg", "yuvj420p"), ("libx264", "yuvj420p")])
@pytest.mark.parametrize("level", [16, 128, 235])
def test_full_range_is_read_as_full_range(tmp_path, codec, pixels, level):
    source = f"color=0x{3 * f'{level:02x}'}:s=64x48:r=25:d=0.2,format=rgb24,scale=out_range=pc,format={pixels}"
    path = made(tmp_path / "clip.mkv", "-c:v", codec, "-color_range", "pc", source=f"{source},setparams=range=pc")
    assert np.abs(frames_of(path)[0].astype(int) - level).max() <= 2


def test_colours_of_transparent_pictures_are_read_as_if_opaque(tmp_path):
    for ending, options in {"mov": ("-c:v", "png"), "mkv": ("-c:v", "ffv1"), "apng": ("-f", "apng")}.items():
        path = made(tmp_path / f"clip.{ending}", *options, source="color=red@0.5:s=64x48:r=25:d=0.2,format=rgba")
        assert np.abs(frames_of(path)[0].astype(int) - (255, 0, 0)).max() <= 2


# -- sound never costs the picture ------------------------------------------------------------------------------------


def unknown_codec(data, tracks):
    """Replace the codec of sound tracks in a mov file by one that ffmpeg lacks."""
    data, places = bytearray(data), [i for i in range(len(data)) if data[i : i + 4] == b"mp4a"]
    for track in tracks:
        data[places[track] : places[track] + 4] = b"apac"
        extra = data.find(b"esds", places[track])
        data[extra : extra + 4] = b"dapa"
    return bytes(data)


@pytest.mark.parametrize(("tracks", "heard"), [((), True), ((0,), True), ((0, 1), True), ((0, 1, 2), False)])
def test_the_first_sound_that_can_be_decoded_is_taken(tmp_path, caplog, tracks, heard):
    sines = ("-f", "lavfi", "-i", "sine=duration=0.4", "-map", "0:v", *("-map", "1:a") * 3, "-c:a", "aac")
    path = made(tmp_path / "clip.mp4", *sines, "-pix_fmt", "yuv420p")
    path.write_bytes(unknown_codec(path.read_bytes(), tracks))
    reader = VideoReader(path)
    assert len(list(reader)) == 10
    assert (reader.audio() is not None) == heard
    assert caplog.text.count("apac") >= len(tracks)


@pytest.mark.parametrize("begin", [0.2, 0.5, 0.8])
def test_damaged_sound_is_read_as_far_as_it_goes(tmp_path, caplog, begin):
    with VideoWriter(tmp_path / "clip.mkv", 8, audio=tone(2)) as video:
        for frame in natural(16, 32, 32):
            video.write(frame)
    data = bytearray((tmp_path / "clip.mkv").read_bytes())
    at = round(len(data) * begin)
    data[at : at + 3000] = bytes(3000)
    (tmp_path / "clip.mkv").write_bytes(data)
    reader = VideoReader(tmp_path / "clip.mkv", strict=False)
    sound = reader.audio()
    assert sound is None or sound.samples.shape[1] <= 96_000
    assert "damaged" in caplog.text


# -- folders of pictures ----------------------------------------------------------------------------------------------

NAMES = {
    "core's Save Image": "shot_{:05d}_.png",
    "copies": "shot ({}).png",
    "JPEG": "{:05d}.jpg",
    "JPEG by its long ending": "Frame{:d}.JPEG",
    "WebP": "f-{:03d}.webp",
    "two numbers": "v2_{:04d}.png",
    "growing digits": "{}.png",
}


@pytest.mark.parametrize("kind", NAMES)
def test_numbered_pictures_are_read_in_the_order_of_their_last_number(tmp_path, kind):
    image = pytest.importorskip("PIL.Image")
    for n in range(1, 13):
        image.fromarray(np.full((32, 32, 3), n * 10, np.uint8)).save(tmp_path / NAMES[kind].format(n))
    (tmp_path / "._00001.png").write_bytes(b"\0\5\x16\7")
    (tmp_path / ".hidden_3.jpg").write_bytes(b"x")
    (tmp_path / "notes 7.txt").write_text("x")
    reader = VideoReader(tmp_path)
    assert [round(frame.mean() / 10) for frame in reader] == list(range(1, 13))
    assert len(reader) == 12


@pytest.mark.parametrize("kind", ["core's Save Image", "copies", "JPEG"])
def test_gaps_other_kinds_and_pictures_without_numbers_are_reported(tmp_path, caplog, kind):
    image = pytest.importorskip("PIL.Image")
    for n in (1, 2, 5):
        image.fromarray(np.full((32, 32, 3), n * 10, np.uint8)).save(tmp_path / NAMES[kind].format(n))
    other = NAMES["WebP"].format(1)
    image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / other)
    image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / f"cover{os.path.splitext(NAMES[kind])[1]}")
    assert [round(frame.mean() / 10) for frame in VideoReader(tmp_path)] == [1, 2, 5]
    assert NAMES[kind].format(3) in caplog.text
    assert "several kinds" in caplog.text
    assert "without a number" in caplog.text


# -- the ffmpeg in use ------------------------------------------------------------------------------------------------


def wrapped(path, monkeypatch, version):
    """A program that says it is an older ffmpeg, and refuses the options that came after it."""
    lines = "\\n".join(["ffmpeg version N-1", f"libavcodec     {version[0]}. {version[1]}.100 / 58. 1.100"])
    path.write_text(
        f'#!/bin/sh\nfor word in "$@"; do case "$word" in\n-version) printf "{lines}\\n"; exit 0;;\n'
        "-stats_period|-fps_mode) echo Unrecognized option >&2; exit 1;; -vsync) ;;\nesac; done\n"
        # today's ffmpeg has lost the old option
        f'for word in "$@"; do shift; [ "$word" = -vsync ] && word=-fps_mode; set -- "$@" "$word"; done\n'
        f'exec "{ffmpeg_module.ffmpeg_exe()}" "$@"\n'
    )
    path.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(path))


@pytest.mark.usefixtures("program_only")
@pytest.mark.skipif(os.name == "nt", reason="a shell script stands for ffmpeg")
@pytest.mark.parametrize("version", [(58, 54), (58, 91), (58, 133)])
def test_an_older_ffmpeg_writes_and_reads(tmp_path, monkeypatch, version):
    wrapped(tmp_path / "ffmpeg", monkeypatch, version)
    clip = natural(4, 32, 32)
    with VideoWriter(tmp_path / "clip.mkv", 8, audio=tone(0.5)) as video:
        for frame in clip:
            video.write(frame)
    reader = VideoReader(tmp_path / "clip.mkv")
    assert np.array_equal(list(reader), clip)
    assert reader.audio().channels == 2


@pytest.mark.usefixtures("program_only")
@pytest.mark.skipif(os.name == "nt", reason="a shell script stands for ffmpeg")
@pytest.mark.parametrize("version", [(58, 35), (57, 107), (54, 1)])
def test_an_ffmpeg_that_is_too_old_is_named_with_the_upgrade(tmp_path, monkeypatch, version):
    clip = made(tmp_path / "clip.mp4", "-pix_fmt", "yuv420p")
    wrapped(tmp_path / "ffmpeg", monkeypatch, version)
    for call in (lambda: VideoWriter(tmp_path / "a.mp4", 8), lambda: frames_of(clip)):
        with pytest.raises(T2VError, match=r"ffmpeg is too old|ffmpeg at .*ffmpeg is too old.*upgrade"):
            call()


# -- tags, texts and names that mean harm -----------------------------------------------------------------------------
