"""Clips in containers that this pack does not write: their rates, their ends, and what they say of their colours."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from t2v_models.errors import T2VError
from t2v_models.video import VideoReader
from t2v_models.video.ffmpeg import process as ffmpeg_module
from t2v_models.video.frame_rate import measured_rate, usual_rate

from .support.engines import every_engine, program_only  # noqa: F401
from .support.strange_clips import frames_of, made

CLIPS = {
    "avi": ("25", ("-c:v", "mpeg4")),
    "huffyuv.avi": ("8", ("-c:v", "huffyuv")),
    "ntsc.avi": ("30000/1001", ("-c:v", "mpeg4")),
    "mpg": ("25", ("-c:v", "mpeg2video")),
    "film.mpg": ("24", ("-c:v", "mpeg1video", "-bf", "2")),
    "vob": ("30000/1001", ("-c:v", "mpeg2video")),
    "ogv": ("30000/1001", ("-c:v", "libtheora")),
    "mkv": ("30000/1001", ("-c:v", "libvpx", "-g", "3")),
    "flv": ("24", ("-c:v", "flv", "-ar", "22050")),
    "wmv": ("24", ("-c:v", "wmv2")),
}


@pytest.mark.parametrize("name", CLIPS)
def test_a_short_clip_with_sound_has_its_own_rate_in_every_container(tmp_path, name):
    rate, codec = CLIPS[name]
    sound = ("-f", "lavfi", "-i", "sine=duration=0.6", "-pix_fmt", "yuv420p")
    path = made(tmp_path / f"clip.{name}", *sound, *codec, source=f"testsrc=s=64x48:r={rate}:d=0.5")
    reader = VideoReader(path)
    assert reader.rate == Fraction(rate)
    assert len(reader) == len(list(reader)) == int(Fraction(rate) / 2 + Fraction(1, 2))


@pytest.mark.parametrize(("ending", "codec"), [("avi", "mpeg4"), ("avi", "huffyuv"), ("wmv", "wmv2")])
def test_a_still_is_as_long_as_its_sound_where_a_container_repeats_its_pictures(tmp_path, ending, codec):
    flash = "color=black:s=64x48:r=25:d=4,geq=lum='if(gte(T,3),235,16)':cb=128:cr=128,select='lt(t,1)+gte(t,3)'"
    sound = ("-f", "lavfi", "-i", "aevalsrc='if(gte(t,3),sin(880*2*PI*t),0)':d=4", "-c:v", codec, "-pix_fmt", "yuv420p")
    reader = VideoReader(made(tmp_path / f"clip.{ending}", *sound, *ffmpeg_module.every_frame(), source=flash))
    bright = next(n for n, frame in enumerate(reader) if frame.mean() > 100) / reader.rate
    audio = reader.audio()
    heard = int((np.abs(audio.samples[0]) > 0.1).argmax()) / audio.rate
    assert reader.rate == 25
    assert abs(float(bright) - heard) < 0.1


def test_a_rate_that_a_file_states_is_taken_where_its_stamps_agree():
    millisecond, span = Fraction(1, 1000), Fraction(133, 1000)
    assert measured_rate(5, span, millisecond, None) == 30
    assert measured_rate(5, span, millisecond, None, Fraction(30000, 1001)) == Fraction(30000, 1001)
    assert measured_rate(5, span, millisecond, None, Fraction(25)) == 30


def test_a_container_that_counts_frames_has_the_rate_of_its_count():
    tick = Fraction(1001, 30000)
    assert measured_rate(5, 4 * tick, tick, tick) == measured_rate(5, 9 * tick, tick, tick) == 1 / tick
    assert usual_rate([0, 2, 3, 4, 9], tick, 1 / tick, 12 * tick) == (1 / tick, 13)


WHOLE = {
    "avi": ("-c:v", "mpeg4"),
    "flv": ("-c:v", "flv"),
    "ogv": ("-c:v", "libtheora"),
    "mkv": ("-c:v", "mjpeg"),
    "live.mkv": ("-c:v", "mjpeg", "-live", "1"),
    "live.webm": ("-c:v", "libvpx", "-live", "1"),
    "gif": (),
    "webp": ("-c:v", "libwebp_anim"),
}
TAILS = {
    "zeros": bytes(5000),
    "ones": b"\xff" * 64,
    "a line end": b"\r\n",
    "noise": np.random.default_rng(3).bytes(777),
}


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("name", WHOLE)
def test_bytes_behind_a_whole_file_of_any_container_are_ignored(tmp_path, name, tail):
    path = made(tmp_path / f"clip.{name}", *WHOLE[name], source="testsrc=s=64x48:r=25:d=0.2")
    wanted = frames_of(path)
    path.write_bytes(path.read_bytes() + TAILS[tail])
    assert np.array_equal(frames_of(path), wanted)


@pytest.mark.parametrize("name", ["flv", "ogv", "live.mkv", "live.webm"])
@pytest.mark.parametrize("share", [0.8, 0.97])
def test_a_part_that_ends_behind_the_file_is_a_cut_in_any_container(tmp_path, name, share):
    path = made(tmp_path / f"clip.{name}", *WHOLE[name])
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(T2VError, match="cut off"):
        frames_of(path)
    assert frames_of(path, strict=False)


def test_a_gif_that_lacks_nothing_but_its_end_mark_is_whole(tmp_path):
    path = made(tmp_path / "clip.gif")
    wanted = frames_of(path)
    path.write_bytes(path.read_bytes()[:-1])
    assert np.array_equal(frames_of(path), wanted)


@pytest.mark.parametrize("less", [1, 100, 1500])
def test_a_webp_that_is_cut_off_is_read_as_far_as_it_goes_where_that_is_asked(tmp_path, less):
    path = made(tmp_path / "clip.webp", "-c:v", "libwebp_anim")
    count = len(frames_of(path))
    path.write_bytes(path.read_bytes()[:-less])
    with pytest.raises(T2VError, match="cut off"):
        frames_of(path)
    assert 0 < len(frames_of(path, strict=False)) < count


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_of_a_folder_are_turned_and_mirrored_as_a_camera_says(tmp_path, every_engine, orientation, ending):  # noqa: F811
    if ending != "jpg" and every_engine == "ffmpeg":
        pytest.skip("ffmpeg's own versions differ")
    image = pytest.importorskip("PIL.Image")
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:16, :32] = (250, 0, 0)
    exif = image.Exif()
    exif[0x0112] = orientation
    for number in range(2):
        image.fromarray(picture).save(tmp_path / f"{number}.{ending}", exif=exif, quality=95)
    wanted = np.asarray(
        pytest.importorskip("PIL.ImageOps").exif_transpose(image.open(tmp_path / f"0.{ending}")).convert("RGB")
    )
    got = frames_of(tmp_path)[1]
    assert got.shape == wanted.shape
    assert np.abs(got.astype(int) - wanted).mean() < 8


def test_sound_that_outlasts_the_picture_is_not_called_damaged(tmp_path, caplog):
    sound = ("-f", "lavfi", "-i", "sine=duration=2", "-pix_fmt", "yuv420p", "-c:a", "aac")
    reader = VideoReader(made(tmp_path / "clip.mp4", *sound))
    assert reader.audio().samples.shape[1] == 0.4 * reader.audio().rate
    assert "damaged" not in caplog.text


@pytest.mark.parametrize(
    "says", ["color_trc=log100", "color_trc=log316", "colorspace=ycgco", "colorspace=ictcp", "colorspace=bt2020c"]
)
def test_colours_that_cannot_be_converted_are_read_with_a_warning(tmp_path, caplog, says):
    source = f"color=gray:s=64x48:r=25:d=0.2,format=yuv420p,setparams={says}"
    option, value = says.split("=")
    path = made(tmp_path / "clip.mkv", "-c:v", "ffv1", f"-{option}", value, source=source)
    assert np.abs(frames_of(path)[0].astype(int) - 128).max() <= 2
    assert value.removesuffix("c") in caplog.text


@pytest.mark.parametrize("text", ["ffconcat version 1.0\nfile a\n", "1\n00:00:00,000 --> 00:00:01,000\nhi\n", None])
def test_a_container_that_is_not_read_is_named_as_the_cause(tmp_path, text):
    path = tmp_path / ("clip.mxf" if text is None else "clip.mp4")
    if text is None:
        made(path, "-c:v", "mpeg2video")
    else:
        path.write_text(text)
    with pytest.raises(T2VError, match="none of those that are read here"):
        frames_of(path)
