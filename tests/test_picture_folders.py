"""Folders of pictures: the order of their numbers, and pictures that are not what their names say."""

from __future__ import annotations

import random

import numpy as np
import pytest

from t2v_models.errors import T2VError
from t2v_models.video import VideoReader
from t2v_models.video.numbered_pictures import ordered, pattern, report_gaps

from .support.engines import every_engine  # noqa: F401

image = pytest.importorskip("PIL.Image")
pytest.importorskip("imageio_ffmpeg")

IN_ORDER = {
    "a number after the count": [f"shot_{n}@2x.png" for n in range(8, 13)],
    "a size after the count": [f"{n}_1080p.png" for n in (1, 2, 10, 11)],
    "takes": ["take1_8.png", "take1_9.png", "take1_10.png", "take2_1.png"],
    "times of the day": ["Shot at 10.59.58.png", "Shot at 10.59.59.png", "Shot at 11.00.00.png"],
    "days": ["2023-12-30.jpg", "2023-12-31.jpg", "2024-01-01.jpg"],
    "the count alone": ["v2_0001.png", "v2_0002.png", "v2_0010.png"],
    "growing digits": ["9.png", "10.png", "100.png"],
    "copies": ["shot.1.png", "b 2.png", "a 10.png"],
    "milliseconds": ["1700000000999.png", "1700000001039.png"],
}


@pytest.mark.parametrize("kind", IN_ORDER)
def test_pictures_are_in_the_order_of_the_numbers_that_count_them(kind):
    names = IN_ORDER[kind].copy()
    random.Random(0).shuffle(names)
    assert [each.name for each in ordered(names)] == IN_ORDER[kind]


def test_the_number_that_counts_gives_the_pattern_and_the_gaps(tmp_path, caplog):
    assert pattern(ordered([f"50%_{n:03d}@2x.png" for n in range(5)])) == "50%%_%03d@2x.png"
    report_gaps(tmp_path, ordered(["7_1080p.png", "8_1080p.png", "10_1080p.png"]))
    assert "9_1080p.png" in caplog.text
    caplog.clear()
    report_gaps(tmp_path, ordered(IN_ORDER["times of the day"]))
    report_gaps(tmp_path, ordered(IN_ORDER["takes"]))
    assert "one number" not in caplog.text


def saved(folder, name, grey, kind=None):
    image.fromarray(np.full((32, 32, 3), grey, np.uint8)).save(folder / name, kind)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp"])
def test_pictures_are_read_as_what_they_are_whatever_their_ending(tmp_path, every_engine, kind, ending):  # noqa: F811
    for n in range(1, 4):
        saved(tmp_path, f"{n}{ending}", n * 40, kind)
    assert [round(frame.mean() / 40) for frame in VideoReader(tmp_path)] == [1, 2, 3]


def test_an_empty_picture_is_named_or_left_out_where_that_is_asked(tmp_path, every_engine, caplog):  # noqa: F811
    for n in range(1, 4):
        saved(tmp_path, f"{n}.png", n * 40)
    (tmp_path / "2.png").write_bytes(b"")
    with pytest.raises(T2VError, match=r"2\.png in .* is empty"):
        VideoReader(tmp_path)
    assert [round(frame.mean() / 40) for frame in VideoReader(tmp_path, strict=False)] == [1, 3]
    assert "2.png" in caplog.text
