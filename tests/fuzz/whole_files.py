"""Whole files by several writers: none may be refused.

    python -m tests.fuzz.whole_files [--ffmpeg PATH …] [--comfyui FOLDER]

Writers: each ffmpeg that is named (and the one in use), PyAV, Pillow, imageio-ffmpeg's generators, ComfyUI's own VIDEO type
with the Python of the ComfyUI that is named, and gifsicle, x264, mkvmerge and img2webp where the system has them.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from t2v_models.errors import T2VError
from t2v_models.video import VideoReader
from t2v_models.video.ffmpeg.process import ffmpeg_exe

SIZES = ((64, 48), (66, 34), (320, 240))
"""(width, height)"""
RATES = ("24", "30000/1001", "8")
FRAMES = 6

CODES = {
    "mp4": ("libx264", "mpeg4", "libx265"),
    "mov": ("libx264", "prores_ks", "mjpeg", "png"),
    "mkv": ("libx264", "ffv1", "libvpx-vp9"),
    "webm": ("libvpx-vp9", "libvpx"),
    "avi": ("mpeg4", "mjpeg", "ffv1"),
    "ts": ("libx264", "mpeg2video"),
    "gif": ("gif",),
    "apng": ("apng",),
    "webp": ("libwebp_anim",),
}
"""Container -> ffmpeg's encoders."""

Written = Iterator[tuple[str, Path]]
"""(writer, file)"""


def frames(width: int, height: int) -> np.ndarray:
    """(FRAMES, h, w, 3) uint8: a square that moves over a gradient."""
    clip = np.zeros((FRAMES, height, width, 3), np.uint8)
    clip[..., 1] = np.linspace(0, 200, width, dtype=np.uint8)
    for number, frame in enumerate(clip):
        frame[8:20, 4 * number : 4 * number + 12] = (220, 40, 30)
    return clip


def by_ffmpeg(exe: str, folder: Path) -> Written:
    known = subprocess.run(
        [exe, "-hide_banner", "-encoders"], capture_output=True, text=True, check=True
    ).stdout.split()
    folder.mkdir()
    cases = [(ending, code) for ending, codes in CODES.items() for code in codes if code in known]
    for (ending, code), (width, height), sound in itertools.product(cases, SIZES[:2], (False, True)):
        if sound and ending in ("gif", "apng", "webp"):
            continue
        path = folder / f"{code}-{width}-{sound}.{ending}"
        source = ["-f", "lavfi", "-i", f"testsrc=s={width}x{height}:r={RATES[width % 3]}:d=0.5"]
        audio = ["-f", "lavfi", "-i", "sine=d=0.5", "-shortest"] if sound else []
        done = subprocess.run(
            [exe, "-v", "error", "-y", *source, *audio, "-c:v", code, path], check=False, stderr=subprocess.DEVNULL
        )
        if done.returncode == 0:
            yield f"ffmpeg {exe}", path


def by_pyav(folder: Path) -> Written:
    import av

    folder.mkdir()
    cases = (
        ("mp4", "libx264"),
        ("mkv", "libx264"),
        ("webm", "libvpx-vp9"),
        ("mov", "mpeg4"),
        ("avi", "mpeg4"),
        ("mkv", "ffv1"),
    )
    for (ending, code), (width, height), rate in itertools.product(cases, SIZES, RATES):
        path = folder / f"{code}-{width}-{rate.replace('/', '_')}.{ending}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream(code, rate=Fraction(rate))
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for frame in frames(width, height):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
            container.mux(stream.encode())
        yield "PyAV", path


def by_pillow(folder: Path) -> Written:
    from PIL import Image

    folder.mkdir()
    options = [{"duration": 100}, {"duration": 40, "loop": 0}, {"duration": [30, 60, 90, 40, 50, 200], "loop": 3}]
    forms = (
        ("gif", {"disposal": 2}),
        ("gif", {}),
        ("webp", {"lossless": True}),
        ("webp", {"quality": 60}),
        ("png", {}),
    )
    for (number, option), (which, (ending, form)), (width, height) in itertools.product(
        enumerate(options), enumerate(forms), SIZES
    ):
        first, *rest = map(Image.fromarray, frames(width, height))
        path = folder / f"{number}-{which}-{width}.{ending}"
        first.save(path, save_all=True, append_images=rest, **option, **form)
        yield "Pillow", path


def by_imageio(folder: Path) -> Written:
    import imageio_ffmpeg

    folder.mkdir()
    cases = (("mp4", "libx264"), ("mkv", "libx264"), ("mov", "libx264"), ("webm", "libvpx-vp9"), ("avi", "mpeg4"))
    for (ending, code), size, rate in itertools.product(cases, SIZES, (8, 24.5, 30)):
        path = folder / f"{code}-{size[0]}-{rate}.{ending}"
        writer = imageio_ffmpeg.write_frames(str(path), size, fps=rate, codec=code, macro_block_size=2)
        writer.send(None)
        for frame in frames(*size):
            writer.send(np.ascontiguousarray(frame))
        writer.close()
        yield "imageio", path


CORE = """
import sys
from fractions import Fraction
folder = sys.argv.pop()
sys.argv.append("--cpu")
import torch
from comfy_api.latest import InputImpl, Types
for number, (width, height) in enumerate([(64, 48), (66, 34), (320, 240)]):
    for rate in ("24", "30000/1001", "8", "12.5", "60"):
        for sound in (False, True):
            wave = {"waveform": torch.rand(1, 2, 22050) / 9, "sample_rate": 44100} if sound else None
            images = torch.rand(6, height, width, 3)
            parts = Types.VideoComponents(images=images, audio=wave, frame_rate=Fraction(rate))
            path = f"{folder}/{width}-{rate.replace('/', '_')}-{sound}.mp4"
            InputImpl.VideoFromComponents(parts).save_to(path, metadata={"prompt": {"a": 1}})
"""


def by_core(comfyui: Path, folder: Path) -> Written:
    folder.mkdir()
    python = next(path for path in (comfyui / ".venv/bin/python", Path(sys.executable)) if path.exists())
    subprocess.run([python, "-c", CORE, folder], cwd=comfyui, check=True, capture_output=True)
    for path in sorted(folder.iterdir()):
        yield f"ComfyUI {comfyui.name}", path


def by_others(folder: Path) -> Written:
    """Files by other programs, each where it is installed."""
    folder.mkdir()
    for width, height in SIZES:
        base = folder / f"base-{width}"
        command = [ffmpeg_exe(), "-v", "error", "-y", "-f", "lavfi", "-i", f"testsrc=s={width}x{height}:r=8:d=0.75"]
        subprocess.run([*command, f"{base}.gif"], check=True)
        subprocess.run([*command, "-pix_fmt", "yuv420p", f"{base}.y4m"], check=True)
        subprocess.run([*command, f"{base}-%d.png"], check=True)
        pictures = sorted(map(str, folder.glob(f"{base.name}-*.png")))
        jobs = [
            *(("gifsicle", f"{base}-o{n}.gif", [f"-O{n}", f"{base}.gif", "-o"]) for n in (1, 2, 3)),
            ("gifsicle", f"{base}-unoptimised.gif", ["--unoptimize", "--delay=7", f"{base}.gif", "-o"]),
            *(("x264", f"{base}-{kind}.{kind}", ["--quiet", f"{base}.y4m", "-o"]) for kind in ("mkv", "flv", "264")),
            ("x264", f"{base}-p.mkv", ["--quiet", "--profile", "baseline", f"{base}.y4m", "-o"]),
            ("img2webp", f"{base}-lossy.webp", ["-lossy", "-d", "60", *pictures, "-o"]),
            ("img2webp", f"{base}-lossless.webp", ["-d", "90", "-loop", "2", *pictures, "-o"]),
            ("mkvmerge", f"{base}-merged.mkv", ["-q", f"{base}-mkv.mkv", "-o"]),
            ("mkvmerge", f"{base}-merged.webm", ["-q", "--title", "{[", f"{base}-mkv.mkv", "-o"]),
        ]
        for name, path, arguments in jobs:
            if (exe := shutil.which(name)) and subprocess.run([exe, *arguments, path], check=False).returncode == 0:
                yield name, Path(path)


def fault(path: Path) -> str:
    """Read a file with its sound; returns what is wrong, or nothing."""
    try:
        reader = VideoReader(path)
        count = sum(1 for _ in reader)
        reader.audio()
    except (T2VError, OSError) as error:
        return f"refused: {error}"
    return "" if count else "no frame"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ffmpeg", nargs="*", default=[], help="further ffmpeg programs")
    parser.add_argument("--comfyui", nargs="*", type=Path, default=[], help="folders of ComfyUIs")
    args = parser.parse_args()
    counts: Counter[str] = Counter()
    refused = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        writers = [by_ffmpeg(exe, folder / f"ffmpeg{n}") for n, exe in enumerate([ffmpeg_exe(), *args.ffmpeg])]
        writers += [by_core(each, folder / f"core{n}") for n, each in enumerate(args.comfyui)]
        writers += [by_pyav(folder / "pyav"), by_pillow(folder / "pillow"), by_imageio(folder / "imageio")]
        for writer, path in itertools.chain(*writers, by_others(folder / "others")):
            counts[writer] += 1
            if found := fault(path):
                refused += 1
                print(f"{writer}: {path.name}: {found}", flush=True)
    for writer, count in counts.items():
        print(f"{writer:<60} {count}")
    print(f"{sum(counts.values())} files, {refused} refused")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
