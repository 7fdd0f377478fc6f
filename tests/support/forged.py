"""Forged pickles and archives, and a child process that is bound in memory and time to read them."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def text(value: str) -> bytes:
    """The opcode of a text."""
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def name(module: str, attribute: str) -> bytes:
    """The opcode of a class or function."""
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


TENSOR = (
    name("torch._utils", "_rebuild_tensor_v2")
    + b"(("
    + text("storage") + name("torch", "FloatStorage") + text("0") + text("cpu") + b"K\x10tQ"
    + b"K\x00K\x04K\x04\x86K\x04K\x01\x86\x89" + name("collections", "OrderedDict") + b")RtR"
)  # fmt: skip
"""A 4x4 tensor of the storage "0"."""


def torch_zip(path: Path, pickle: bytes, *, compressed: bool = False) -> None:
    """Write what torch.save writes, with any pickle and one storage of 16 floats."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle, zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/data/0", bytes(64))


READ = """
import json, resource, sys, time
from t2v_models.checkpoints.files import read_file
from t2v_models.errors import T2VError
for path in sys.argv[1:]:
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        said = f"read {len(read_file(path))}"
    except T2VError as error:
        said = f"refused: {error}" if path in str(error) else f"unnamed: {error}"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    print(json.dumps([path, said[:3000], time.process_time() - start, grown]), flush=True)
"""

SLOWEST, MOST = 10, 700
"""Seconds of the processor's time, and megabytes of memory beyond those before, that a hostile file may take."""


def child(code: str, *arguments: str | Path, seconds: float = 20, gigabytes: float = 4) -> subprocess.CompletedProcess:
    """Run Python code with the library on its path; ends it after so many seconds of the processor's time."""
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (int(gigabytes * 2**30),) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 3, int(seconds) + 3))  # torch's import takes 3

    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        preexec_fn=limit,
        check=False,
    )


def outcomes(paths: list[Path]) -> dict[str, str]:
    """Open files in one bound child; returns what came of each by its name ("read 1", "refused: …").

    Fails where one takes too long or too much, is refused at length, or ends the child.
    """
    done = child(READ, *paths, seconds=3 * SLOWEST)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(paths), f"{paths[len(results)].name} ended it: {done.returncode} {done.stderr[-500:]}"
    for path, said, seconds, grown in results:
        assert seconds < SLOWEST, f"{path} took {seconds:.1f} s"
        assert grown < MOST, f"{path} took {grown} MB"
        assert said.startswith(("read", "refused")), said
        assert len(said) < 1000, said
    return {Path(path).stem: said for path, said, *_ in results}
