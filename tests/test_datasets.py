"""Clips of a data set become frames by time, buckets and batches, and the command shows what a data set holds."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from t2v_models.__main__ import main
from t2v_models.datasets import (
    Clip,
    Dataset,
    Example,
    batches,
    length_bucket,
    read_frames,
    size_bucket,
)
from t2v_models.datasets.clips import seconds
from t2v_models.datasets.inspection import inspect
from t2v_models.errors import T2VError

from .support.dataset_clips import FRAMES, RATE, put, shown, write_video

TEXT = "Ein Kreis läuft 円 nach rechts"


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "clip.mp4")


# ---- frames by time


@pytest.mark.parametrize("fps", [1, 5, 7.5, 8, 12, 24, 30000 / 1001])
@pytest.mark.parametrize("span", [(0.0, None), (0.5, 2.0), (0.3, 3.1), (1.25, 100.0)])
def test_frame_k_is_the_one_that_is_shown_at_second_k_over_fps(video: Path, fps: float, span: tuple) -> None:
    frames, rate = read_frames(Clip(video, *span), fps)
    assert rate == pytest.approx(fps)
    end = min(span[1] or FRAMES / RATE, FRAMES / RATE)
    exact = Fraction(fps).limit_denominator(10**6)
    start = Fraction(span[0]).limit_denominator(10**6)
    wanted = [math.floor((start + k / exact) * RATE) for k in range(500) if float(start + k / exact) < end - 1e-9]
    assert shown(frames) == wanted


def test_frames_have_the_files_own_rate_where_none_is_given(video: Path) -> None:
    frames, rate = read_frames(Clip(video), count=5)
    assert (shown(frames), rate) == ([0, 1, 2, 3, 4], RATE)


@pytest.mark.parametrize("size", [(32, 32), (64, 32), (16, 48), (48, 32)])
def test_frames_cover_a_size_and_are_cut_at_their_middle(video: Path, size: tuple[int, int]) -> None:
    frames, _ = read_frames(Clip(video), 12, 2, size)
    assert frames.shape == (2, size[1], size[0], 3)


@pytest.mark.parametrize(
    ("clip", "fps"), [((5.0, None), 8), ((4.0, 9.0), 8), ((0.0, None), 0.0), ((0.0, None), math.nan)]
)
def test_a_span_outside_the_file_and_an_impossible_rate_are_refused(video: Path, clip: tuple, fps: float) -> None:
    with pytest.raises(T2VError, match=r"has no frame|a number above 0"):
        read_frames(Clip(video, *clip), fps)


# ---- examples, buckets and batches


def test_examples_are_cut_to_buckets_of_length(tmp_path: Path, video: Path) -> None:
    put(video, tmp_path / "a.mp4")
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    (example,) = Dataset(tmp_path, fps=6, frames=16)
    assert (example.frames.shape, example.caption, example.fps) == ((16, 32, 48, 3), TEXT, 6)
    assert shown(example.frames) == list(range(0, 32, 2))
    assert "a.mp4 at 0 s" in example.source
    parts = list(Dataset(tmp_path, fps=6, frames=8, cut="all"))
    assert [shown(part.frames)[0] for part in parts] == [0, 16, 32]
    first, second = (list(Dataset(tmp_path, fps=6, frames=8, cut="random", seed=s)) for s in (1, 1))
    assert np.array_equal(first[0].frames, second[0].frames)
    short = Dataset(tmp_path, fps=6, frames=24, lengths=(8, 16, 24))
    assert [len(example.frames) for example in short] == [24]
    none = Dataset(tmp_path, fps=1, lengths=(8,))
    assert list(none) == []
    assert none.faults.counts == {"too short": 1}


def test_a_damaged_file_is_counted_and_the_rest_is_read(tmp_path: Path, video: Path) -> None:
    put(video, tmp_path / "a.mp4", tmp_path / "c.mp4")
    (tmp_path / "b.mp4").write_bytes(b"no video at all")
    (tmp_path / "d.mp4").write_bytes(b"")
    data = Dataset(tmp_path, caption="x", frames=8)
    assert len(list(data)) == 2
    assert data.faults.counts == {"damaged": 2}
    assert "b.mp4" in str(data.faults)


def loss(width: int, height: int, shape: float) -> float:
    """What is cut off, and half of what is not used; up to a constant."""
    return abs(math.log(width / height / shape)) - math.log(width * height) / 2


@pytest.mark.parametrize("multiple", [8, 64])
def test_a_bucket_of_size_loses_least_of_all_within_the_area(multiple: int) -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        width, height = (int(n) for n in random.integers(16, 4000, 2))
        area = int(random.integers(multiple**2, 600**2))
        w, h = size_bucket(width, height, area, multiple)
        assert w % multiple == h % multiple == 0
        assert 0 < w * h <= area
        most = area // multiple**2
        every = ((x, y) for x in range(1, most + 1) for y in range(1, most // x + 1)) if most < 60 else ()
        lost = loss(w, h, width / height)
        assert all(lost <= loss(x * multiple, y * multiple, width / height) + 1e-9 for x, y in every)
    with pytest.raises(T2VError, match="raise the area"):
        size_bucket(10, 10, multiple**2 - 1, multiple)


def test_the_longest_length_that_is_filled_is_chosen() -> None:
    assert [length_bucket(n) for n in (0, 1, 7, 8, 15, 16, 23, 24, 100)] == [0, 1, 1, 8, 8, 16, 16, 24, 24]


def test_a_batch_never_mixes_shapes_and_nothing_is_lost() -> None:
    random = np.random.default_rng(0)
    shapes = [
        (int(t), int(s), 8, 3) for t, s in zip(random.choice([1, 8], 50), random.choice([8, 16], 50), strict=True)
    ]
    examples = [Example(np.zeros(shape, np.uint8), str(i), 8, "") for i, shape in enumerate(shapes)]
    made = list(batches(examples, 3))
    assert all(len({example.frames.shape for example in batch}) == 1 and len(batch) <= 3 for batch in made)
    assert sorted(int(example.caption) for batch in made for example in batch) == list(range(50))


@pytest.mark.parametrize(
    ("text", "value"),
    [("PT00H00M20S", 20), ("PT1H2M3S", 3723), ("1.5", 1.5), ("0:01:20", 80), (3, 3.0), ("x", None), ("", None), (True, None),
     (math.nan, None), ("inf", None), (-1, None), (10**400, None), ("1" * 60, None), (None, None)],
)  # fmt: skip
def test_seconds_are_read_from_numbers_and_times(text: object, value: float | None) -> None:
    assert seconds(text) == value


# ---- the command


def test_inspect_prints_what_is_there_and_draws_a_sheet(
    tmp_path: Path, video: Path, capsys: pytest.CaptureFixture
) -> None:
    from PIL import Image

    put(video, tmp_path / "set" / "a.mp4", tmp_path / "set" / "b.mp4")
    write_video(tmp_path / "set" / "c.mp4", 24, 24, (32, 64))
    (tmp_path / "set" / "bad.mp4").write_bytes(b"x")
    (tmp_path / "set" / "a.txt").write_text("a red circle", encoding="utf-8")
    sheet = tmp_path / "sheet.png"
    assert main(["dataset", "inspect", str(tmp_path / "set"), "--caption", "x", "--sheet", str(sheet)]) == 0
    said = capsys.readouterr().out
    for part in (
        "folder",
        "clips     4",
        "48x32 (2)",
        "32x64 (1)",
        "12 (2)",
        "a red circle",
        "1 damaged",
        "bad.mp4",
        str(sheet),
    ):
        assert part in said
    with Image.open(sheet) as picture:
        pixels = np.asarray(picture)
    assert pixels.shape[1] == 4 * 132 + 4
    contents = inspect(tmp_path / "set", caption="x")
    assert sorted(contents.seconds) == [1.0, 4.0, 4.0]
