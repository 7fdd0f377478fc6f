"""What long videos cost: time a frame and peak memory by length, and the methods side by side.

    python benchmarks/length.py
    python benchmarks/length.py --method endless --frames 64 256
    python benchmarks/length.py --only methods

Every length is made by a process of its own, from the story to the finished file. The processes work in turn, one call of
the model each, so that a busy machine slows all alike: the longest film every other turn, the shorter ones in those between,
again and again until the longest is finished. The methods are compared in one process, in turn: one denoising step of 64
frames, and whole films of as many.
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
"""Of the methods side by side."""
WARMUP = 17
"""Frames of a film before the measured one: the first calls of everything cost more."""
KEPT = {"MALLOC_TRIM_THRESHOLD_": "1000000000", "MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TOP_PAD_": "67108864"}
"""glibc's allocator keeps what is freed. Else it hands memory back and takes it again, by chance in one process and not in
the next: of equal processes, one took 2,000 pages a call and another 19,000, and was a tenth slower for it."""


def film(
    pipeline: Any, frames: int, method: str, output: Path, progress: Callable[[int, int], None] | None = None
) -> None:
    """Make the story in so many frames, from text to file."""
    from t2v_models.films.film import Film
    from t2v_models.video import VideoWriter

    made = Film(pipeline, STORY, frames=frames, method=method, progress=progress)
    with VideoWriter(output, made.fps, overwrite=True) as writer:
        for part in made.frames():
            for frame in part.numpy():
                writer.write(frame)


def one_length(model: str, frames: int, method: str) -> None:
    """Run in a process of its own: make the film again and again, for as long as it gets turns.

    A turn is a line of standard input. It ends with a line of standard output: empty after a call of the model, or what
    a finished film was: the seconds of its turns and the peak memory, the model's weights included.
    """
    from t2v_models import load_pipeline

    pipeline = load_pipeline(model)
    begun = seconds = 0.0

    def turn(said: str) -> None:
        nonlocal begun, seconds
        seconds += time.perf_counter() - begun
        print(said, flush=True)
        if not sys.stdin.readline():
            sys.exit()
        begun = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        film(pipeline, WARMUP, method, Path(folder) / "warm.mp4")
        turn("")
        while True:
            seconds = 0.0
            reset_peak()
            film(pipeline, frames, method, Path(folder) / "film.mp4", lambda done, total: turn(""))
            seconds += time.perf_counter() - begun
            row = {"frames": frames, "seconds": seconds, "peak_mb": (peak_memory() or 0) / 1e6}
            begun = time.perf_counter()
            turn(json.dumps(row))


class Child:
    """A process that makes films of one length whenever it has its turn."""

    def __init__(self, model: str, frames: int, method: str) -> None:
        command = [sys.executable, __file__, "--child", "--model", model, "--method", method, "--frames", str(frames)]
        pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env={**os.environ, **KEPT}, **pipe)
        self.films: list[dict[str, float]] = []
        self._listen()

    def turn(self) -> None:
        """Let it call the model once more."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self._listen()

    def _listen(self) -> None:
        said = self.process.stdout.readline()
        if not said:
            raise SystemExit(f"A film was not made: {' '.join(self.process.args)}")
        if said.strip():
            self.films.append(json.loads(said))

    @property
    def row(self) -> dict[str, float]:
        """The mean of its finished films; the highest peak."""
        means = {key: statistics.mean(film[key] for film in self.films) for key in ("frames", "seconds")}
        return {**means, "peak_mb": max(film["peak_mb"] for film in self.films)}


def lengths(model: str, method: str, wanted: list[int]) -> list[dict[str, float]]:
    """A row per length, the longest last."""
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
            child.process.communicate()  # the end of its input: it stops and removes its files
    rows = [child.row for child in children]
    for row in rows:
        print(
            f"{row['frames']:6.0f} frames  {row['seconds']:8.1f} s  {1000 * row['seconds'] / row['frames']:7.1f} ms a frame  "
            f"{row['peak_mb']:7.0f} MB",
            flush=True,
        )
    return rows


def in_turn(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds of each way, taken in turn, and median of its ratios to the first way in the same round.

    A machine is seldom as fast in one minute as in the next: within a round it is. The first round only warms up.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            run = measured(way)
            if turn:
                seconds[name].append(run.seconds)
    first, found = next(iter(ways)), {}
    for name, each in seconds.items():
        ratio = statistics.median(own / plain for own, plain in zip(each, seconds[first], strict=True))
        found[name] = {"seconds": statistics.median(each), "ratio": ratio}
        print(f"{name:20s} {found[name]['seconds']:.3f} s, {ratio:.3f} of the {first}", flush=True)
    return found


def steps(model: str, frames: int) -> dict[str, Callable[[], Any]]:
    """One guided denoising step over `frames` frames, by the way it is done."""
    import torch

    from t2v_models import load_pipeline
    from t2v_models.sampling.windows import Windows

    pipeline = load_pipeline(model)
    own = pipeline.defaults
    window = Windows(own.frames, own.frames // 2).over(frames)
    unets = {
        "plain pass": pipeline.unet,
        "windowed attention": Windows(own.frames, own.frames // 2, free_noise=True).over(frames).around(pipeline.unet),
        "windows": window.around(pipeline.unet, step=1),  # as most steps have them: one more than the first
    }
    x = torch.randn(1, pipeline.unet.config.out_channels, frames, own.height // 8, own.width // 8)
    context = pipeline.encode_text(["", "a red circle moves right"])

    def step(unet: Callable[..., Any]) -> None:
        with torch.no_grad():
            unet(x, torch.tensor([500]), context)

    return {name: partial(step, unet) for name, unet in unets.items()}


def films(model: str, frames: int) -> dict[str, Callable[[], Any]]:
    """A whole film's latents, by the method; the plain pass is one long clip."""
    from t2v_models import load_pipeline
    from t2v_models.films.film import Film
    from t2v_models.films.settings import METHODS

    pipeline = load_pipeline(model)
    text = "a red circle moves right"

    def make(method: str) -> None:
        for _ in Film(pipeline, text, frames=frames, method=method).latents():
            pass

    ways = {method: partial(make, method) for method in METHODS}
    return {"plain pass": lambda: pipeline(text, frames=frames, decode=False), **ways}


def overlap_factor(frames: int, length: int, overlap: int) -> float:
    """Frames that all windows of a step but the first have together, to each of the clip."""
    from t2v_models.sampling.windows import Windows

    return sum(map(len, Windows(length, overlap).over(frames).spans(step=1))) / frames


def draw(rows: list[dict[str, float]], title: str, path: Path) -> None:
    """Time a frame and peak memory over the length, from zero up, as a picture."""
    from math import log2

    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (900, 360), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(13)
    pen.text((60, 10), title, "black", font)
    panels = [
        ("ms a frame", [1000 * row["seconds"] / row["frames"] for row in rows]),
        ("MB at the peak", [row["peak_mb"] for row in rows]),
    ]
    first, last = (log2(rows[i]["frames"]) for i in (0, -1))
    for panel, (name, values) in enumerate(panels):
        left, right, top, bottom = 60 + 440 * panel, 420 + 440 * panel, 60, 310
        highest = 1.25 * max(values)
        pen.text((left, 36), name, "black", font)
        pen.line([(left, top), (left, bottom), (right, bottom)], "gray")
        points = []
        for row, value in zip(rows, values, strict=True):
            x = left + 30 + (right - left - 60) * (log2(row["frames"]) - first) / max(last - first, 1e-9)
            y = bottom - (bottom - top) * value / highest
            points.append((x, y))
            pen.ellipse([x - 3, y - 3, x + 3, y + 3], fill=(38, 84, 166))
            pen.text((x - 14, bottom + 8), f"{row['frames']:.0f}", "black", font)
            pen.text((x - 14, y - 22), f"{value:.0f}", "black", font)
        pen.line(points, (38, 84, 166), 2)
    image.save(path)


def main() -> None:
    """Measure, print, and write what was measured."""
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
        found["methods"] = in_turn(steps(args.model, METHOD_FRAMES), args.rounds)
        print(f"A film of {METHOD_FRAMES} frames:")
        found["films"] = in_turn(films(args.model, METHOD_FRAMES), max(1, args.rounds // 10))
    args.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
