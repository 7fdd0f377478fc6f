"""The texts that four versions of ffmpeg print about some clips give equal facts (see tests/record_ffmpeg.py)."""

from __future__ import annotations

from fractions import Fraction

import pytest

from t2v_models.video import AudioInfo
from t2v_models.video.ffmpeg_text import (
    VideoStream,
    audio_stream,
    error_message,
    first_stamp,
    names,
    packets,
    video_stream,
    written_frames,
)
from t2v_models.video.frame_rate import measured_rate
from t2v_models.video.metadata import parse_ffmetadata

from .record_ffmpeg import FOLDER, METADATA, read_recording

RECORDINGS = {path.stem: read_recording(path) for path in sorted(FOLDER.glob("*.txt"))}

STREAMS = {
    "sound.mp4": VideoStream((66, 48), "yuv420p", "bt709", 23.98),
    "loop.gif": VideoStream((40, 30), "bgra", None, 12.5),
    "lossless.mkv": VideoStream((32, 24), "gbrp16le", "gbr", 10),
    "late.mkv": VideoStream((32, 24), "gbrp16le", "gbr", 10),
    "alpha.webm": VideoStream((64, 48), "yuv420p", None, 25),
    "variable.mkv": VideoStream((64, 48), "yuv420p", None, 25),
    "rotated.mp4": VideoStream((48, 64), "yuv420p", None, 25),
    "reordered.avi": VideoStream((64, 48), "yuv420p", None, 25),
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
def test_size_pixels_matrix_and_printed_rate_are_parsed(texts, clip):
    assert video_stream(texts[f"{clip} streams"]) == STREAMS[clip]


@pytest.mark.parametrize("clip", STREAMS)
def test_the_sound_track_is_parsed_where_there_is_one(texts, clip):
    sound = {"sound.mp4": AudioInfo(48_000, 2), "lossless.mkv": AudioInfo(48_000, 6), "late.mkv": AudioInfo(48_000, 6)}
    assert audio_stream(texts[f"{clip} streams"]) == sound.get(clip)


@pytest.mark.parametrize("clip", FRAMES)
def test_frames_are_counted_and_their_rate_is_measured_from_packets(texts, clip):
    found = packets(texts[f"{clip} packets"].encode().splitlines(keepends=True))
    assert (found.count, measured_rate(found.count, found.span, found.tick, found.uniform)) == FRAMES[clip]


def test_stored_texts_are_parsed(texts):
    private = {"t2v_frame_rate": "24000/1001", "t2v_size": "65x47"}
    assert parse_ffmetadata(texts["sound.mp4 metadata"].encode()) == METADATA | private


def test_times_of_the_first_picture_and_the_first_sound_are_parsed(texts):
    assert first_stamp(texts["late.mkv picture"]) == Fraction(4, 10)
    assert first_stamp(texts["late.mkv sound"]) == 0


def test_written_frames_are_parsed_from_the_statistics(texts):
    assert written_frames(texts["late.mkv picture"]) == 1
    assert written_frames("") is None


def test_a_file_that_is_no_video_has_no_stream_and_one_clear_message(texts):
    text = texts["broken.mp4 streams"]
    assert video_stream(text) is None
    assert audio_stream(text) is None
    assert "Invalid data found when processing input" in error_message(text, 1)


def test_encoders_and_demuxers_are_parsed(texts):
    assert {"libx264", "libvpx-vp9", "ffv1", "gif", "libwebp", "png", "prores_ks"} <= names(texts["ffmpeg encoders"])
    assert names(texts["ffmpeg demuxers"]) >= {"gif", "matroska,webm"}
    assert not names(texts["ffmpeg encoders"]) & {"=", "Video", "Audio"}


def test_the_demuxer_of_animated_webp_is_found_where_it_is():
    having = {version for version, texts in RECORDINGS.items() if "webp_anim" in names(texts["ffmpeg demuxers"])}
    assert having == {"9.0.2"}
