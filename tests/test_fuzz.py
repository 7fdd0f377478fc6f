"""A sample of the fuzzing scripts, and a test that their child process reports each kind of fault."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from t2v_models.errors import T2VError

from .fuzz import checkpoints, loras, videos, whole_files
from .fuzz.run import Child, fuzz

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="limits of memory and process groups are POSIX's"),
]

FAULTS = {
    "foreign file": "opened '/etc/hostname'",
    "written file": ".new' w",
    "address": "socket.connect",
    "program": "started",
    "memory": "MemoryError",
    "hang": "hang",
    "crash": "crash: status -6",
    "long message": "unclear error",
}


def test_the_child_reports_each_kind_of_fault(tmp_path: Path) -> None:
    sample = tmp_path / "sample"
    sample.write_text("nothing")
    child = Child("careless", sample, seconds=2)
    found = {}
    for fault in FAULTS:
        path = tmp_path / "folder" / fault.replace(" ", "_")
        path.parent.mkdir(exist_ok=True)
        path.write_text(fault)
        found[fault] = child.read(path)
    after = child.read(sample)
    child.close()
    assert {fault: text for fault, text in found.items() if FAULTS[fault] not in text} == {}
    assert after == "loaded"


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ffmpeg", "pyav"])
def test_mutated_videos_are_read_or_refused(tmp_path: Path, engine: str) -> None:
    bait = videos.Bait(tmp_path)
    files = videos.originals()
    mutate = videos.mutations_of(sorted(files), videos.playlists(bait.canary, bait.port))
    report = fuzz(engine, files, mutate, range(7_000, 7_063), tmp_path)
    bait.close()
    assert report.failures == []
    assert bait.touched == []
    assert {result for *_, result in report.counts} == {"loaded", "refused"}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "module"), [("checkpoint", checkpoints), ("lora", loras)])
def test_mutated_weights_are_read_or_refused(tmp_path: Path, kind: str, module) -> None:
    report = fuzz(kind, module.originals(), module.mutate, range(7_000, 7_100), tmp_path)
    assert report.failures == []
    assert not (tmp_path / "witness").exists()
    assert {result for *_, result in report.counts} == {"loaded", "refused"}


@pytest.mark.parametrize("quoted", ["\0", "\x1b[2J", "\r", "\x7f", "\x9b", "\ud800"])
def test_a_message_shows_control_characters_as_escapes(quoted: str) -> None:
    message = str(T2VError(f"The file holds {quoted}, which is no name."))
    assert message.isprintable()
    assert ascii(quoted)[1:-1] in message
    message.encode()


@pytest.mark.slow
@pytest.mark.parametrize("write", [whole_files.by_pillow, whole_files.by_pyav, whole_files.by_others])
def test_whole_files_of_other_writers_are_read(tmp_path: Path, write) -> None:
    pytest.importorskip("av")
    faults = {path.name: found for _, path in write(tmp_path / "files") if (found := whole_files.fault(path))}
    assert faults == {}
