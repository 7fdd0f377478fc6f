"""The forms in which data sets are kept, read row by row."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import T2VError
from ..foreign import quoted
from .clips import Clip, Faults, checked, find_video, is_video, sorted_videos
from .json_stream import json_entries, json_lines, open_text
from .queryd import is_queryd, queryd

MOST_CAPTION = 1 << 16
"""Bytes of a text beside a clip that are read."""


def form_of(path: str | os.PathLike[str]) -> str:
    """Return the name of a data set's form, a key of `FORMS`.

    Raises:
        T2VError: where it is none that is known.
    """
    path = Path(path)
    if path.is_dir():
        if is_queryd(path):
            return "QuerYD"
        return "CelebV-Text" if (path / "video").is_dir() and any(_text_folders(path)) else "folder"
    if not path.is_file():
        raise T2VError(f"{path} is no file and no folder: check the name.")
    ending = path.suffix.lower()
    if is_video(path):
        return "one clip"
    if ending == ".csv":
        return "WebVid CSV"
    if ending in (".jsonl", ".ndjson"):
        return "clip ranges"
    if ending == ".json":
        return _json_form(path)
    raise T2VError(
        f"{path} is no data set that is known: give a video, a folder of videos with texts, or a .csv, .json or .jsonl file."
    )


def _json_form(path: Path) -> str:
    for key, value in islice(json_entries(path), 8):
        if isinstance(value, dict) and "video_path" in value:
            return "video captions JSON"
        if key is None:
            return "clip ranges"
        if isinstance(value, dict) and {"text", "start", "end"} <= set(value):
            return "HowTo100M captions"
    raise T2VError(f"{path} is JSON of no form that is known: see docs/training.md for those that are.")


def clips(path: str | os.PathLike[str], faults: Faults, *, caption: str | None = None) -> Iterator[Clip]:
    """Yield the clips of a data set one by one, those whose files are there; others are counted in `faults`.

    Args:
        path: a file or folder of one of `FORMS`.
        faults: where what is left out is counted.
        caption: the text of clips of a folder, or of one clip, that have none of their own.

    Raises:
        T2VError: where the form is not known, or the file is damaged as a whole; what stands before was yielded.
    """
    path = Path(path)
    yield from FORMS[form_of(path)](path, faults, caption)


def _one(path: Path, faults: Faults, caption: str | None) -> Iterator[Clip]:
    text = _text_beside(path) or caption
    if not text:
        raise T2VError(f"{path} has no caption: write one into {path.with_suffix('.txt').name} beside it, or give one.")
    clip = checked(path.parent, path.name, text, faults)
    if clip is not None:
        yield clip


def _folder(path: Path, faults: Faults, caption: str | None) -> Iterator[Clip]:
    for file in sorted_videos(path):
        text = _text_beside(file) or caption
        if not text:
            faults.add("without a text", file)
        elif clip := checked(file.parent, file.name, text, faults):
            yield clip


def _text_beside(file: Path) -> str | None:
    """Return the text in the .txt file beside a video; None where there is none, or it is empty."""
    for ending in (".txt", ".TXT", ".caption"):
        text = _read(file.with_suffix(ending)) or _read(file.with_name(file.name + ending))
        if text:
            return text
    return None


def _read(path: Path) -> str:
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            return file.read(MOST_CAPTION).decode("utf-8-sig", "replace").strip()
    except OSError:
        return ""


def _webvid(path: Path, faults: Faults, caption: str | None) -> Iterator[Clip]:
    """WebVid, Bain et al. 2021 (arXiv:2104.00650): videos/{page_dir}/{videoid}.mp4; nothing is downloaded."""
    with open_text(path) as file:
        rows = csv.reader(_lines(file, path))
        header = [name.strip().lower() for name in next(rows, [])]
        if not {"videoid", "name"} <= set(header):
            raise T2VError(f"{path} has no columns videoid and name, as WebVid's CSV has: {quoted(header)}.")
        while True:
            try:
                row = next(rows, None)
            except csv.Error as error:
                faults.add("damaged rows", f"line {rows.line_num}: {error}")
                continue
            if row is None:
                return
            if not row:
                continue
            values = dict(zip(header, row, strict=False))
            clip = _webvid_clip(path.parent, values, faults) if len(row) == len(header) else None
            if clip is not None:
                yield clip
            elif len(row) != len(header):
                faults.add("damaged rows", f"line {rows.line_num}")


def _webvid_clip(root: Path, row: dict[str, str], faults: Faults) -> Clip | None:
    name, page = row["videoid"].strip(), row.get("page_dir", "").strip()
    if not name or os.path.basename(name) != name or ".." in re.split(r"[/\\]", page) or os.path.isabs(page):
        faults.add("with a damaged name or text", f"{page}/{name}")
        return None
    places = [os.path.join(folder, f"{name}.mp4") for folder in (f"videos/{page}".rstrip("/"), page, "videos", "")]
    found = next((place for place in places if os.path.isfile(os.path.join(root, place))), places[0])
    return checked(root, found, row["name"], faults)


def _lines(file: Any, path: Path, most: int = 1 << 20) -> Iterator[str]:
    while line := file.readline(most + 1):
        if len(line) > most:
            raise T2VError(f"{path} has a line longer than {most:,} characters: mend or remove it.")
        yield line.replace("\0", "")


def _ranges(path: Path, faults: Faults, caption: str | None) -> Iterator[Clip]:
    """[{"video", "start", "end", "caption"}], or one such object a line: seconds, or start_frame and end_frame."""
    rows = json_lines(path) if path.suffix.lower() != ".json" else (value for _, value in json_entries(path))
    for row in rows:
        if not isinstance(row, dict):
            faults.add("damaged rows", row if isinstance(row, T2VError) else quoted(row))
            continue
        name, text = row.get("video", row.get("file")), row.get("caption", row.get("text", caption))
        start, end = row.get("start", 0.0), row.get("end")
        if "start_frame" in row or "end_frame" in row:
            clip = _by_frames(path.parent, name, text, row.get("start_frame", 0), row.get("end_frame"), faults)
        else:
            clip = checked(path.parent, name, text, faults, start, end)
        if clip is not None:
            yield clip


def _by_frames(root: Path, name: Any, text: Any, start: Any, end: Any, faults: Faults) -> Clip | None:
    """Make a clip of a span in frames, which are seconds at the file's own rate."""
    from ..video import VideoReader

    clip = checked(root, name, text, faults)
    if clip is None:
        return None
    try:
        rate = VideoReader(clip.file).info.fps
        begin, stop = (None if value is None else float(int(value) / rate) for value in (start, end))
    except (T2VError, OSError, ValueError, TypeError, OverflowError) as error:
        faults.add("damaged", f"{name}: {error}")
        return None
    return checked(root, name, text, faults, begin, stop)


def _captions(path: Path, faults: Faults, caption: str | None) -> Iterator[Clip]:
    """ExponentialML's JSON of Video-BLIP2: a video's entries are captions from a frame on, up to the next entry's."""
    for _, video in json_entries(path):
        if isinstance(video, str):  # the data set's name
            continue
        entries = video.get("data") if isinstance(video, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            faults.add("damaged rows", quoted(video))
            continue
        frames = [entry.get("frame_index", 0) for entry in entries]
        for entry, frame in zip(entries, frames, strict=True):
            if isinstance(entry.get("clip_path"), str):
                clip = checked(path.parent, entry["clip_path"], entry.get("prompt"), faults)
            else:
                later = [
                    other for other in frames if isinstance(other, int) and isinstance(frame, int) and other > frame
                ]
                end = min(later, default=None)
                clip = _by_frames(path.parent, video.get("video_path"), entry.get("prompt"), frame, end, faults)
            if clip is not None:
                yield clip


def _howto(path: Path, faults: Faults, caption: str | None) -> Iterator[Clip]:
    """HowTo100M, Miech et al. 2019 (arXiv:1906.03327): texts, starts and ends by the video's name."""
    for name, video in json_entries(path):
        lists: list[Any] = [video.get(part) for part in ("text", "start", "end")] if isinstance(video, dict) else []
        if not lists or not all(isinstance(part, list) and len(part) == len(lists[0]) for part in lists):
            faults.add("damaged rows", name)
            continue
        found = find_video(path.parent, name, faults)
        if found is None:
            continue
        for text, start, end in zip(*lists, strict=True):
            clip = checked(path.parent, found, text, faults, start, end)
            if clip is not None:
                yield clip


def _text_folders(path: Path) -> Iterator[Path]:
    """Yield the folders beside "video" that hold texts."""
    for folder in sorted(path.iterdir()):
        if folder.is_dir() and folder.name != "video" and next(folder.glob("*.txt"), None) is not None:
            yield folder


def _celebv(path: Path, faults: Faults, caption: str | None) -> Iterator[Clip]:
    """CelebV-Text, Yu et al. 2023 (arXiv:2303.14717): a folder for each kind of text; the first line of each is joined."""
    kinds = list(_text_folders(path))
    for file in sorted_videos(path / "video"):
        lines = [(_read(kind / f"{file.stem}.txt").splitlines() or [""])[0].strip() for kind in kinds]
        text = " ".join(line for line in lines if line) or caption
        if not text:
            faults.add("without a text", file)
        elif clip := checked(file.parent, file.name, text, faults):
            yield clip


def _queryd(path: Path, faults: Faults, caption: str | None) -> Iterator[Clip]:
    return queryd(path, faults)


FORMS: dict[str, Callable[[Path, Faults, str | None], Iterator[Clip]]] = {
    "one clip": _one,
    "folder": _folder,
    "WebVid CSV": _webvid,
    "clip ranges": _ranges,
    "video captions JSON": _captions,
    "HowTo100M captions": _howto,
    "QuerYD": _queryd,
    "CelebV-Text": _celebv,
}
"""The name of each form, and what reads it."""
