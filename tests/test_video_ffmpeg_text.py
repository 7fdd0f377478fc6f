"""The texts that four versions of ffmpeg print about some clips give equal facts (see tests/record_ffmpeg.py)."""

from __future__ import annotations

from fractions import Fraction

import pytest

from t2v_models.video import AudioInfo
from t2v_models.video.engine import Sound
from t2v_models.video.ffmpeg.text import library_version, names, packets, written_frames
from t2v_models.video.ffmpeg_text import error_message, picture, secret_name, sound
from t2v_models.video.frame_rate import measured_rate
from t2v_models.video.metadata import parse_ffmetadata

from .record_ffmpeg import FOLDER, METADATA, PICTURE, SOUND, read_recording

RECORDINGS = {path.stem: read_recording(path) for path in sorted(FOLDER.glob("*.txt"))}

STREAMS = {
    "sound.mp4": ((66, 48), "yuv420p", "bt709", 23.98),
    "loop.gif": ((40, 30), "bgra", None, 12.5),
    "lossless.mkv": ((32, 24), "gbrp16le", "gbr", 10),
    "late.mkv": ((32, 24), "gbrp16le", "gbr", 10),
    "alpha.webm": ((64, 48), "yuv420p", None, 25),
    "variable.mkv": ((64, 48), "yuv420p", None, 25),
    "rotated.mp4": ((48, 64), "yuv420p", None, 25),
    "reordered.avi": ((64, 48), "yuv420p", None, 25),
}
FRAMES = {
    "sound.mp4": (6, Fraction(24000, 1001)),
    "lossless.mkv": (5, 10),
    "late.mkv": (5, 10),
    "alpha.webm": (10, 25),
    "variable.mkv": (5, Fraction(100, 9)),
    "rotated.mp4": (10, 25),
    "reordered.avi": (10, 25),
}
"""Clip -> frames, frames a second; the GIF's frames are counted in the file itself."""


@pytest.fixture(params=RECORDINGS)
def texts(request):
    return RECORDINGS[request.param]


def test_three_supported_versions_are_recorded():
    assert {version.split(".")[0] for version in RECORDINGS} >= {"5", "7", "9"}


@pytest.mark.parametrize("clip", STREAMS)
def test_size_pixels_matrix_and_rate_are_parsed(texts, clip):
    found = picture(texts[f"{clip} picture"], PICTURE)
    size, pixels, matrix, rate = STREAMS[clip]
    assert (found.size, found.pixels, found.matrix) == (size, pixels, matrix)
    assert float(found.rate) == pytest.approx(rate, abs=0.005)
    assert (found.aspect, found.interlaced) == (1, False)


@pytest.mark.parametrize("clip", STREAMS)
def test_the_sound_track_is_parsed_where_there_is_one(texts, clip):
    wanted = {"sound.mp4": AudioInfo(48_000, 2), "lossless.mkv": AudioInfo(48_000, 6), "late.mkv": AudioInfo(48_000, 6)}
    found = sound(texts[f"{clip} sound"], SOUND)
    assert (found and found.info) == wanted.get(clip)


@pytest.mark.parametrize("clip", FRAMES)
def test_frames_are_counted_and_their_rate_is_measured_from_packets(texts, clip):
    found = packets(texts[f"{clip} packets"].encode().splitlines(keepends=True))
    assert (found.count, measured_rate(found.count, found.span, found.tick, found.uniform)) == FRAMES[clip]


def test_stored_texts_are_parsed(texts):
    private = {"t2v_frame_rate": "24000/1001", "t2v_size": "65x47"}
    assert parse_ffmetadata(texts["sound.mp4 metadata"].encode()) == METADATA | private


def test_times_of_the_first_picture_and_the_first_sound_are_parsed(texts):
    assert picture(texts["late.mkv picture"], PICTURE).begin == Fraction(4, 10)
    assert sound(texts["late.mkv sound"], SOUND) == Sound(AudioInfo(48_000, 6), Fraction(0))


def test_written_frames_are_parsed_from_the_statistics(texts):
    assert written_frames(texts["late.mkv picture"]) == 1
    assert written_frames("") is None


def test_a_file_that_is_no_video_has_no_picture_and_one_clear_message(texts):
    assert picture(texts["broken.mp4 picture"], PICTURE) is None
    assert sound(texts["broken.mp4 sound"], SOUND) is None
    for kind in ("errors", "picture"):
        message = error_message(texts[f"broken.mp4 {kind}"], 1)
        assert message.startswith("moov atom not found")
        assert "Invalid data found when processing input" in message


def test_the_version_is_parsed(texts):
    assert library_version(texts["ffmpeg version"]) in {(58, 54), (59, 37), (61, 3), (63, 1)}
    assert library_version("no ffmpeg") is None


FORGED = (
    "[Parsed_showinfo_0 @ 0x1] n:   0 pts:      0 pts_time:0       fmt:yuv420p sar:1/1 s:16x16 i:P iskey:1 type:I",
    f"[{PICTURE} @ 0x1] n:   0 pts:      0 pts_time:0       fmt:yuv420p sar:1/1 s:16x16 i:P iskey:1 type:I",
    f"[{SOUND} @ 0x1] n:0 pts:0 pts_time:0 fmt:fltp channels:99 chlayout:stereo rate:1 nb_samples:1024",
    "  Stream #0:0: Video: h264, yuv420p, 16x16, 8 fps",
)


@pytest.mark.parametrize("line", FORGED)
def test_a_tag_cannot_forge_a_fact(texts, line):
    """The names of the filters are drawn for every call, and a file was written before."""
    name, other = secret_name("showinfo"), secret_name("showinfo")
    assert name != other
    text = texts["sound.mp4 picture"].replace(PICTURE, name)
    assert picture(f"    x\n{line}\n : y\n{text}", name) == picture(text, name)
    assert sound(f"    x\n{line}\n : y\n", secret_name("ashowinfo")) is None


TELLING = {
    "[libx264 @ 0x5] width not divisible by 2 (65x47)\n[vost#0:0/libx264 @ 0x6] Error while opening encoder - maybe "
    "incorrect parameters such as bit_rate, rate, width or height.\n[vf#0:0 @ 0x7] Error sending frames to consumers: Generic "
    "error in an external library\n[out#0/mp4 @ 0x8] Nothing was written into output file, because at least one of its "
    "streams received no packets.\nConversion failed!": "width not divisible by 2 (65x47)",
    '[aac @ 0x1] Unsupported channel layout "3 channels"\nError initializing output stream 0:1 -- Error while opening '
    "encoder for output stream #0:1\nConversion failed!": 'Unsupported channel layout "3 channels"',
    "[h264 @ 0x1] Invalid NAL unit size (7 > 3).\n[vist#0:0/h264 @ 0x2] [dec:h264 @ 0x3] Error submitting packet to decoder: "
    "Invalid data found when processing input": "Invalid NAL unit size (7 > 3)",
    "Conversion failed!": "Conversion failed!",
    "": "no reason",
}


@pytest.mark.parametrize(("text", "line"), TELLING.items())
def test_the_line_that_tells_the_cause_is_quoted_not_the_last_one(text, line):
    assert error_message(text, 1) == line


def test_encoders_and_demuxers_are_parsed(texts):
    assert {"libx264", "libvpx-vp9", "ffv1", "gif", "libwebp", "png", "prores_ks"} <= names(texts["ffmpeg encoders"])
    assert names(texts["ffmpeg demuxers"]) >= {"gif", "matroska,webm"}
    assert not names(texts["ffmpeg encoders"]) & {"=", "Video", "Audio"}


def test_the_demuxer_of_animated_webp_is_found_where_it_is():
    having = {version for version, texts in RECORDINGS.items() if "webp_anim" in names(texts["ffmpeg demuxers"])}
    assert having == {"9.0.2"}
