"""Measure long videos: time per frame and peak memory by length, and the methods side by side.

    python benchmarks/length.py
    python benchmarks/length.py --method endless --frames 64 256
    python benchmarks/length.py --only methods

Each length has a process of its own, which makes films from the story to the finished file. The processes take turns of
one model call each, so that a busy machine slows all of them alike. Every other turn is for the longest film; the shorter
ones share the rest and are made again and again until the longest is finished. The methods take turns in one process: one
denoising step of 64 frames each, and whole films of as many.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import measured, peak_memory, reset_peak

STORY = """0-25%: a red circle moves right
25%-50%: a yellow star moves down
50%-75%: a green square moves left
75%-100%: a blue circle moves up"""
LENGTHS = (64, 256, 1024, 3376)
METHOD_FRAMES = 64
"""Frames of the steps and films by which the methods are compared."""
BLACK, GRAY, BLUE = (0, 0, 0), (128, 128, 128), (38, 84, 166)
WARMUP = 17
"""Frames of a first film that is not measured, since first calls take longer."""
ENVIRONMENT = {
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TOP_PAD_": "67108864",
}
"""glibc's allocator keeps freed memory. Otherwise some processes return it to the system and request it again: of equal
processes, one requested 2,000 pages in a call and another 19,000, which made it a tenth slower."""


def film(
    pipeline: Any, frames: int, method: str, output: Path, progress: Callable[[int, int], None] | None = None
) -> None:
    """Make a film of the story, from its text to a file."""
    from t2v_models import Film
    from t2v_models.video import VideoWriter

    made = Film(pipeline, STORY, frames=frames, method=method, progress=progress)
    with VideoWriter(output, made.fps, overwrite=True) as writer:
        for part in made.frames():
            for frame in part.numpy():
                writer.write(frame)


def one_length(model: str, frames: int, method: str) -> None:
    """Make films of one length again and again, as long as there are turns; runs in a process of its own.

    A turn begins with a line of standard input and ends with a line of standard output. That line is empty after a call
    of the model; after a film it has the seconds of its turns and the peak memory, with the model's weights, as JSON.
    """
    from t2v_models import load_pipeline

    pipeline = load_pipeline(model)
    begun = seconds = 0.0

    def end_turn(report: str) -> None:
        nonlocal begun, seconds
        seconds += time.perf_counter() - begun
        print(report, flush=True)
        if not sys.stdin.readline():
            sys.exit()
        begun = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        film(pipeline, WARMUP, method, Path(folder) / "warm.mp4")
        end_turn("")
        while True:
            seconds = 0.0
            reset_peak()
            film(pipeline, frames, method, Path(folder) / "film.mp4", lambda done, total: end_turn(""))
            seconds += time.perf_counter() - begun
            row = {"frames": frames, "seconds": seconds, "peak_mb": (peak_memory() or 0) / 1e6}
            begun = time.perf_counter()
            end_turn(json.dumps(row))


class Child:
    """A process that makes films of one length, in turns."""

    def __init__(self, model: str, frames: int, method: str) -> None:
        command = [sys.executable, __file__, "--child", "--model", model, "--method", method, "--frames", str(frames)]
        pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env={**os.environ, **ENVIRONMENT}, **pipe)
        self.films: list[dict[str, float]] = []
        self._listen()

    def turn(self) -> None:
        """Let the process call the model once."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self._listen()

    def _listen(self) -> None:
        report = self.process.stdout.readline()
        if not report:
            raise SystemExit(f"A film was not made: {' '.join(self.process.args)}")
        if report.strip():
            self.films.append(json.loads(report))

    @property
    def row(self) -> dict[str, float]:
        """Mean seconds of the finished films, and their highest peak memory."""
        means = {key: statistics.mean(film[key] for film in self.films) for key in ("frames", "seconds")}
        return {**means, "peak_mb": max(film["peak_mb"] for film in self.films)}


def lengths(model: str, method: str, wanted: list[int]) -> list[dict[str, float]]:
    """Measure all lengths; returns a row for each, the longest last."""
    *shorter, longest = children = [Child(model, frames, method) for frames in sorted(set(wanted))]
    try:
        while not all(child.films for child in children):
            for child in shorter or [longest]:
                if not longest.films:
                    longest.turn()
                if child is not longest and not (longest.films and child.films):
                    child.turn()
    finally:
        for child in children:
            child.process.communicate()  # closes its input, so that it removes its files and ends
    rows = [child.row for child in children]
    for row in rows:
        print(
            f"{row['frames']:6.0f} frames  {row['seconds']:8.1f} s  {1000 * row['seconds'] / row['frames']:7.1f} ms a frame  "
            f"{row['peak_mb']:7.0f} MB",
            flush=True,
        )
    return rows


def compare(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, dict[str, float]]:
    """Return the median seconds of each call, and the median of its ratio to the first call of the same round.

    The speed of a machine varies from minute to minute, but little within a round. The first round is not measured.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            run = measured(call)
            if number:
                seconds[name].append(run.seconds)
    first, found = next(iter(calls)), {}
    for name, each in seconds.items():
        ratio = statistics.median(own / plain for own, plain in zip(each, seconds[first], strict=True))
        found[name] = {"seconds": statistics.median(each), "ratio": ratio}
        print(f"{name:20s} {found[name]['seconds']:.3f} s, {ratio:.3f} of the {first}", flush=True)
    return found


def steps(model: str, frames: int) -> dict[str, Callable[[], Any]]:
    """Return calls that do one guided denoising step of `frames` frames, by their method."""
    import torch

    from t2v_models import load_pipeline
    from t2v_models.sampling.windows import Windows

    pipeline = load_pipeline(model)
    own = pipeline.defaults
    window = Windows(own.frames, own.frames // 2).over(frames)
    unets = {
        "plain pass": pipeline.unet,
        "windowed attention": Windows(own.frames, own.frames // 2, free_noise=True).over(frames).around(pipeline.unet),
        "windows": window.around(pipeline.unet, step=1),  # like most steps, one window more than the first
    }
    x = torch.randn(1, pipeline.unet.config.out_channels, frames, own.height // 8, own.width // 8)
    context = pipeline.encode_text(["", "a red circle moves right"])

    def step(unet: Callable[..., Any]) -> None:
        with torch.no_grad():
            unet(x, torch.tensor([500]), context)

    return {name: partial(step, unet) for name, unet in unets.items()}


def films(model: str, frames: int) -> dict[str, Callable[[], Any]]:
    """Return calls that make the latents of a whole film, by their method; the plain pass is one long clip."""
    from t2v_models import Film, load_pipeline
    from t2v_models.films.settings import METHODS

    pipeline = load_pipeline(model)
    text = "a red circle moves right"

    def make(method: str) -> None:
        for _ in Film(pipeline, text, frames=frames, method=method).latents():
            pass

    calls = {method: partial(make, method) for method in METHODS}
    return {"plain pass": lambda: pipeline(text, frames=frames, decode=False), **calls}


def overlap_factor(frames: int, length: int, overlap: int) -> float:
    """Return the frames in all windows of a step, per frame of the clip; the first step has fewer."""
    from t2v_models.sampling.windows import Windows

    return sum(map(len, Windows(length, overlap).over(frames).spans(step=1))) / frames


def draw(rows: list[dict[str, float]], title: str, path: Path) -> None:
    """Write an image of the time per frame and the peak memory over the length, both from zero up."""
    from math import log2

    from t2v_models.plots.canvas import Axes, Canvas

    canvas = Canvas(900, 360, ink=BLACK, font_size=13)
    canvas.text((60, 10), title)
    panels = [
        ("ms a frame", [1000 * row["seconds"] / row["frames"] for row in rows]),
        ("MB at the peak", [row["peak_mb"] for row in rows]),
    ]
    first, last = (log2(rows[i]["frames"]) for i in (0, -1))
    for panel, (name, values) in enumerate(panels):
        left, right, top, bottom = 60 + 440 * panel, 420 + 440 * panel, 60, 310
        axes = Axes(left + 30, top, right - 30, bottom, (first, max(last, first + 1e-9)), (0, 1.25 * max(values)))
        canvas.text((left, 36), name)
        canvas.line([(left, top), (left, bottom), (right, bottom)], GRAY)
        points = [axes.at(log2(row["frames"]), value) for row, value in zip(rows, values, strict=True)]
        for (x, y), row, value in zip(points, rows, values, strict=True):
            canvas.dot((x, y), 3, BLUE)
            canvas.text((x - 14, bottom + 8), f"{row['frames']:.0f}")
            canvas.text((x - 14, y - 22), f"{value:.0f}")
        canvas.line(points, BLUE, 2)
    canvas.save(path)


def main() -> None:
    """Measure, print the figures, and write them to a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="built-in")
    parser.add_argument("--method", default="coarse-to-fine", help="of the films (default coarse-to-fine)")
    parser.add_argument("--frames", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--rounds", type=int, default=30, help="of a step by each method (default 30); films: a tenth")
    parser.add_argument("--only", choices=("lengths", "methods"))
    parser.add_argument("--output", type=Path, default=Path("length.json"), help="figures; the picture lies beside it")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        one_length(args.model, args.frames[0], args.method)
        return
    args.output.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    if args.only != "methods":
        rows = found["lengths"] = lengths(args.model, args.method, args.frames)
        costs = [row["seconds"] / row["frames"] for row in rows]
        print(
            f"time a frame: most to least {max(costs) / min(costs):.3f}; "
            f"peak memory, longest to shortest: {rows[-1]['peak_mb'] / max(rows[0]['peak_mb'], 1e-9):.3f}"
        )
        draw(rows, f"{args.model}, {args.method}", args.output.with_suffix(".png"))
    if args.only != "lengths":
        print(
            f"A step of {METHOD_FRAMES} frames; overlap factor of the windows {overlap_factor(METHOD_FRAMES, 16, 8):.3f}:"
        )
        found["methods"] = compare(steps(args.model, METHOD_FRAMES), args.rounds)
        print(f"A film of {METHOD_FRAMES} frames:")
        found["films"] = compare(films(args.model, METHOD_FRAMES), max(1, args.rounds // 10))
    args.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
