"""Data sets of every form are read as a stream of clips; what is missing or damaged is counted and named."""

from __future__ import annotations

import csv
import json
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from t2v_models.__main__ import main
from t2v_models.datasets import (
    Clip,
    Faults,
    clips,
    form_of,
)
from t2v_models.datasets.json_stream import json_entries
from t2v_models.errors import T2VError

from .support.dataset_clips import put, read, write_video

TEXT = "Ein Kreis läuft 円 nach rechts"


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "clip.mp4")


def test_one_clip_with_a_text(tmp_path: Path, video: Path) -> None:
    put(video, tmp_path / "One.MP4")
    assert form_of(tmp_path / "One.MP4") == "one clip"
    with pytest.raises(T2VError, match="has no caption"):
        read(tmp_path / "One.MP4")
    assert read(tmp_path / "One.MP4", caption=TEXT)[0] == [Clip(tmp_path / "One.MP4", caption=TEXT)]
    (tmp_path / "One.txt").write_text(f"\ufeff{TEXT}\nsecond line", encoding="utf-8")
    assert read(tmp_path / "One.MP4")[0][0].caption == f"{TEXT} second line"


def test_a_folder_of_clips_and_texts(tmp_path: Path, video: Path) -> None:
    put(video, *(tmp_path / name for name in ("a.mp4", "B.MOV", "sub/c.mp4", "d.mp4", "e.e.mp4")))
    for name in ("a.txt", "B.TXT", "sub/c.txt", "e.e.txt"):
        (tmp_path / name).write_text(f"{TEXT} {name}", encoding="utf-8")
    assert form_of(tmp_path) == "folder"
    found, faults = read(tmp_path)
    assert sorted(clip.caption for clip in found) == sorted(
        f"{TEXT} {n}" for n in ("a.txt", "B.TXT", "sub/c.txt", "e.e.txt")
    )
    assert faults.counts == {"without a text": 1}
    assert "d.mp4" in str(faults)
    assert len(read(tmp_path, caption="x")[0]) == 5


def test_webvids_csv(tmp_path: Path, video: Path) -> None:
    put(video, tmp_path / "videos" / "000_050" / "17.mp4", tmp_path / "18.mp4")
    rows = [
        ["17", "https://nowhere/17.mp4", "PT00H00M20S", "000_050", f'{TEXT}, "quoted"\nand on two lines'],
        ["18", "https://nowhere/18.mp4", "PT00H00M20S", "", TEXT],
        ["19", "https://nowhere/19.mp4", "PT00H00M20S", "000_050", TEXT],
        ["../18", "", "", "", TEXT],
        ["18", "", "", "../..", TEXT],
        ["18", "", ""],
        ["18", "", "", "", "  "],
    ]
    with (tmp_path / "results.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["videoid", "contentUrl", "duration", "page_dir", "name"], *rows])
    found, faults = read(tmp_path / "results.csv")
    assert [clip.caption for clip in found] == [f'{TEXT}, "quoted" and on two lines', TEXT]
    assert faults.counts == {
        "missing": 1, "with a damaged name or text": 2, "damaged rows": 1, "without a file's name or a text": 1,
    }  # fmt: skip
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(T2VError, match="no columns videoid and name"):
        read(tmp_path / "other.csv")


RANGES = [
    {"video": "clip.mp4", "start": 0.5, "end": 1.5, "caption": TEXT},
    {"video": "clip.mp4", "start_frame": 12, "end_frame": 24, "caption": "by frames"},
    {"video": "clip.mp4", "start": "0:00:01.5", "caption": "to the end"},
    {"video": "gone.mp4", "start": 0, "end": 1, "caption": "x"},
    {"video": "clip.mp4", "start": 2, "end": 1, "caption": "x"},
    {"video": "clip.mp4", "start": -1, "end": 1, "caption": "x"},
    {"video": "clip.mp4", "start": 1e400, "end": 1, "caption": "x"},
    {"video": "clip.mp4", "start_frame": "many", "caption": "x"},
    {"video": 7, "caption": "x"},
    {"video": "a\0b.mp4", "caption": "x"},
    {"video": "clip.mp4", "caption": 8},
    [1, 2],
]


@pytest.mark.parametrize("ending", [".json", ".jsonl", ".JSONL"])
def test_clip_ranges(tmp_path: Path, video: Path, ending: str) -> None:
    put(video, tmp_path / "clip.mp4")
    path = tmp_path / f"ranges{ending}"
    lines = [json.dumps(row, ensure_ascii=False) for row in RANGES]
    path.write_text(
        "\n\n".join([*lines, '{"video": "clip']) if ending != ".json" else f"[{','.join(lines)}]",
        encoding="utf-8",
    )
    found, faults = read(path)
    file = tmp_path / "clip.mp4"
    assert found == [Clip(file, 0.5, 1.5, TEXT), Clip(file, 1.0, 2.0, "by frames"), Clip(file, 1.5, None, "to the end")]
    assert sum(faults.counts.values()) == len(RANGES) - 3 + (ending != ".json")
    assert faults.counts["missing"] == 1
    assert faults.counts["with an impossible span"] == 3


def test_the_json_of_video_captions(tmp_path: Path, video: Path) -> None:
    put(video, tmp_path / "clip.mp4", tmp_path / "parts" / "p.mp4")
    videos = [
        {"video_path": "clip.mp4", "num_frames": 48, "data": [
            {"frame_index": 0, "prompt": "first"}, {"frame_index": 24, "prompt": "second"},
            {"frame_index": 3, "prompt": "part", "clip_path": "parts/p.mp4"}]},
        {"video_path": "gone.mp4", "data": [{"frame_index": 0, "prompt": "x"}]},
        {"video_path": "clip.mp4", "data": 5},
        {"video_path": "clip.mp4", "data": [{"frame_index": None, "prompt": "x"}]},
    ]  # fmt: skip
    path = tmp_path / "captions.json"
    path.write_text(json.dumps({"name": "mine", "data": videos}))
    found, faults = read(path)
    file = tmp_path / "clip.mp4"
    assert Clip(file, 2.0, None, "second") in found
    assert Clip(tmp_path / "parts" / "p.mp4", caption="part") in found
    assert [clip.caption for clip in found][:3] == ["first", "second", "part"]
    assert faults.counts["missing"] == 1
    assert faults.counts["damaged rows"] == 1


def test_howto100ms_captions(tmp_path: Path, video: Path) -> None:
    put(video, tmp_path / "videos" / "abc.mp4", tmp_path / "def.MP4")
    path = tmp_path / "caption.json"
    given = {
        "abc": {"text": ["one", "two", " "], "start": [0, 1.5, 2], "end": [1, 3.25, 3]},
        "def": {"text": ["three"], "start": [0.0], "end": [2.0]},
        "gone": {"text": ["x"], "start": [0], "end": [1]},
        "../def": {"text": ["x"], "start": [0], "end": [1]},
        "uneven": {"text": ["x", "y"], "start": [0], "end": [1]},
        "none": None,
    }
    path.write_text(json.dumps(given))
    found, faults = read(path)
    assert form_of(path) == "HowTo100M captions"
    assert [(clip.start, clip.end, clip.caption) for clip in found] == [
        (0, 1, "one"),
        (1.5, 3.25, "two"),
        (0, 2, "three"),
    ]
    assert faults.counts == {
        "missing": 1, "with a damaged name or text": 1, "damaged rows": 2, "without a file's name or a text": 1,
    }  # fmt: skip


class Harm:
    def __reduce__(self):
        return (Path.touch, (Path("harm"),))


def test_queryds_pickles_are_read_and_nothing_in_them_is_executed(
    tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    put(video, tmp_path / "videos" / "v1.mp4")
    parts = {
        "raw": {"v1": [["a", "red", "circle"], "blue", "low", "bad"], "gone": ["x"], "uneven": ["x"], "harm": Harm()},
        "times": {"v1": [[0.0, 1.0], (1.0, 2.0), [2.0, 3.0], [3.0]], "gone": [[0, 1]], "uneven": []},
        "confidence": {"v1": [0.9, 0.8, 0.1, 0.9], "gone": [1.0]},
    }
    for name, value in parts.items():
        kind = f"{name}_captions" if name != "confidence" else "confidence_captions"
        (tmp_path / f"{kind}_combined_filtered.pkl").write_bytes(pickle.dumps(value))
    assert form_of(tmp_path) == "QuerYD"
    found, faults = read(tmp_path)
    assert [(clip.start, clip.end, clip.caption) for clip in found] == [(0, 1, "a red circle"), (1, 2, "blue")]
    assert faults.counts == {"of low confidence": 1, "with an impossible span": 1, "missing": 1, "damaged rows": 2}
    assert not (tmp_path / "harm").exists()
    (tmp_path / "times_captions_combined_filtered.pkl").write_bytes(b"\x80\x04no pickle")
    with pytest.raises(T2VError, match=r"times_captions"):
        read(tmp_path)


def test_celebv_text(tmp_path: Path, video: Path) -> None:
    put(video, tmp_path / "video" / "x_1.mp4", tmp_path / "video" / "y_2.MP4", tmp_path / "video" / "z.mp4")
    for kind, name, text in (
        ("action", "x_1", "She nods.\nShe waves."),
        ("emotion", "x_1", "She is glad."),
        ("emotion", "y_2", TEXT),
    ):
        (tmp_path / kind).mkdir(exist_ok=True)
        (tmp_path / kind / f"{name}.txt").write_text(text, encoding="utf-8")
    assert form_of(tmp_path) == "CelebV-Text"
    found, faults = read(tmp_path)
    assert [clip.caption for clip in found] == ["She nods. She is glad.", TEXT]
    assert faults.counts == {"without a text": 1}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", "{", "no readable JSON"),
        ("a.json", '[{"video": "x"} {"video": "y"}]', "no readable JSON"),
        ("a.json", "[" * 100_000, "no readable JSON"),
        ("a.json", '{"a": 1}', "of no form that is known"),
        ("a.json", "", "no readable JSON"),
        ("a.json", f'[{{"video": {"9" * 5000}}}]', "no readable JSON"),
        ("a.json", f'["{"x" * 9_000_000}"]', "longer than"),
        ("a.csv", "videoid,name\n1," + "x" * 2_000_000, "longer than"),
        ("a.csv", "", "no columns"),
        ("a.xyz", "", "no data set that is known"),
    ],
)
def test_a_file_that_is_damaged_as_a_whole_is_refused_in_a_sentence(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(T2VError, match=said):
        read(tmp_path / name)
    assert main(["dataset", "inspect", str(tmp_path / name), "--sheet", str(tmp_path / "sheet.png")]) == 2


@pytest.mark.parametrize("seed", range(4))
def test_json_is_streamed_as_json_reads_it(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)

    def value(depth: int):
        kind = random.integers(0, 7 if depth else 4)
        if kind < 4:
            return [
                int(random.integers(-(10**12), 10**12)),
                float(random.normal()),
                'ä"\\{[,:]}\n円' * int(random.integers(0, 9)),
                None,
            ][kind]
        return [value(depth - 1) for _ in range(4)] if kind < 6 else {f"k{i}": value(depth - 1) for i in range(4)}

    for whole in ([value(3) for _ in range(700)], {f"key {i}": value(3) for i in range(700)}, [], {}):
        path = tmp_path / "a.json"
        path.write_text(
            json.dumps(whole, indent=int(random.integers(0, 3)), ensure_ascii=bool(seed % 2)), encoding="utf-8"
        )
        entries = list(json_entries(path))
        assert entries == ([(None, item) for item in whole] if isinstance(whole, list) else list(whole.items()))


@pytest.mark.slow
def test_rows_are_read_with_flat_memory(tmp_path: Path, video: Path) -> None:
    put(video, tmp_path / "1.mp4")
    peaks = []
    for rows in (2_000, 20_000):
        (tmp_path / "big.csv").write_text(
            "videoid,name\n" + "".join(f"1,{TEXT}\n{i}x,gone\n" for i in range(rows // 2)), encoding="utf-8"
        )
        (tmp_path / "big.json").write_text("[" + ",".join([json.dumps(RANGES[0] | {"video": "1.mp4"})] * rows) + "]")
        for name, count in (("big.csv", rows // 2), ("big.json", rows)):
            tracemalloc.start()
            faults = Faults()
            assert sum(1 for _ in clips(tmp_path / name, faults)) == count
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[2] < 1.5 * peaks[0] + 100_000
    assert peaks[3] < 1.5 * peaks[1] + 100_000
