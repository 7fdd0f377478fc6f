"""Reads many files in child processes, and sums up what came of them."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

SECONDS = 10.0
"""The most that reading a file may take."""


class Child:
    """A process of tests/fuzz/child.py, begun anew after a file that ended or stopped it."""

    def __init__(self, kind: str, sample: Path, seconds: float = SECONDS) -> None:
        self.kind, self.sample, self.seconds = kind, sample, seconds
        self._process: subprocess.Popen[str] | None = None

    def _begin(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.fuzz.child", self.kind]
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONFAULTHANDLER": ""}
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            start_new_session=True, env=os.environ | threads,
        )  # fmt: skip
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._collect, args=(process, self._answers), daemon=True).start()
        self._process = process
        first = self._ask(self.sample, 120)
        if first != "ready":
            raise RuntimeError(f"The child process could not read {self.sample}: {first}")
        return process

    @staticmethod
    def _collect(process: subprocess.Popen[str], answers: queue.SimpleQueue[str]) -> None:
        for line in process.stdout or ():
            answers.put(line)
        answers.put("")

    def _ask(self, path: Path, seconds: float) -> str:
        """Give a path to the process, and wait for its answer."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        try:
            process.stdin.write(f"{path}\n")
            process.stdin.flush()
            answer = self._answers.get(timeout=seconds)
        except queue.Empty:
            self.close()
            return f"hang: more than {seconds:.0f} s"
        except OSError:
            answer = ""
        if not answer:
            status = process.wait()
            self.close()
            return f"crash: status {status}"
        return str(json.loads(answer)[0])

    def read(self, path: Path) -> str:
        """Read a file; returns "loaded", "refused", or the fault. A hang is tried once more, as the machine may be busy."""
        result = ""
        for _ in range(2):
            if self._process is None:
                self._begin()
            result = self._ask(path, self.seconds)
            if not result.startswith("hang"):
                break
        return result

    def close(self) -> None:
        """End the process and the ffmpeg that it may have started."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@dataclass
class Report:
    """What came of the files."""

    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """(file, mutation, result) -> number; the result is "loaded", "refused" or "FAILED"."""
    failures: list[str] = field(default_factory=list)

    def add(self, seed: int, name: str, mutation: str, result: str) -> None:
        fine = result in ("loaded", "refused")
        self.counts[name, mutation, result if fine else "FAILED"] += 1
        if not fine:
            self.failures.append(f"{seed} {mutation} of {name}: {result}")

    def table(self) -> str:
        """Two tables, by file and by mutation, and the sum."""
        lines = []
        for column in (0, 1):
            sums: Counter[tuple[str, str]] = Counter()
            for key, count in self.counts.items():
                sums[key[column], key[2]] += count
            lines += [f"{what:<24} {result:<8} {count}" for (what, result), count in sorted(sums.items())] + [""]
        return "\n".join([*lines, f"{sum(self.counts.values())} files, {len(self.failures)} failures"])


def read_all(
    kind: str, sample: Path, files: Iterable[tuple[int, str, str, bytes]], folder: Path, keep: Path | None = None
) -> Iterator[Report]:
    """Read mutated files, given as (seed, name, mutation, bytes); yields the report after each.

    keep: a folder for the files that failed.
    """
    report = Report()
    child = Child(kind, sample)
    try:
        for seed, name, mutation, data in files:
            path = folder / f"{seed}-{name}"
            path.write_bytes(data)
            result = child.read(path)
            report.add(seed, name, mutation, result)
            if keep and result not in ("loaded", "refused"):
                keep.mkdir(parents=True, exist_ok=True)
                (keep / path.name).write_bytes(data)
            path.unlink()
            yield report
    finally:
        child.close()


Mutate = Callable[[int, dict[str, bytes], str], tuple[str, str, bytes]]
"""(seed, undamaged files by name, the path that executed code would create) -> (mutation, name, bytes)."""


def command(doc: str | None, kind: str, originals: dict[str, bytes], mutate: Mutate) -> int:
    """Run a fuzzing script: read its options, print each failure and the tables; returns the exit status."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="how many files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for the files that failed")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        witness = Path(folder) / "witness"
        report = fuzz(
            kind, originals, mutate, range(args.seed, args.seed + args.count), Path(folder), args.keep, print_each=True
        )
        executed = witness.exists()
    print(report.table())
    print("CODE WAS EXECUTED" if executed else "no code was executed")
    return 1 if report.failures or executed else 0


def fuzz(
    kind: str,
    originals: dict[str, bytes],
    mutate: Mutate,
    seeds: range,
    folder: Path,
    keep: Path | None = None,
    *,
    print_each: bool = False,
) -> Report:
    """Read a mutated file for each seed, in `folder`; returns what came of them."""
    work = folder / "work"
    work.mkdir()
    name, data = next(iter(originals.items()))
    sample = folder / name
    sample.write_bytes(data)

    def files() -> Iterator[tuple[int, str, str, bytes]]:
        for seed in seeds:
            mutation, name, mutated = mutate(seed, originals, str(folder / "witness"))
            yield seed, name, mutation, mutated

    report, shown = Report(), 0
    for report in read_all(kind, sample, files(), work, keep):
        if print_each and len(report.failures) > shown:
            print(report.failures[-1], flush=True)
            shown += 1
        number = sum(report.counts.values())
        if print_each and number % 1000 == 0:
            print(f"{number} files", flush=True)
    return report
