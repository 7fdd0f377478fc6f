"""Record the texts that ffmpeg prints about a few small clips, for tests of the functions that parse them.

    python tests/record_ffmpeg.py /usr/bin/ffmpeg …/ffmpeg-linux-x86_64-v7.0.2 …

The clips are made by the ffmpeg that the library uses, and each program named reads them. Writes
tests/fixtures/ffmpeg/VERSION.txt: a text for each clip and kind of output, under a heading "#### CLIP KIND". Folders and
addresses in memory are replaced, and the tables of encoders and demuxers are cut to what the library looks for.

Sources of the recordings: 4.2.2, 7.0.2 and 9.0.2 from PyPI's imageio-ffmpeg 0.4.5, 0.6.0 and 0.8.1; 5.1.9 from Debian 12.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from t2v_models.video import FORMATS, VideoWriter
from t2v_models.video.engine import Input, file_url
from t2v_models.video.ffmpeg.process import ffmpeg_exe, input_options

FOLDER = Path(__file__).parent / "fixtures" / "ffmpeg"
HEADING = "#### "
METADATA = {"prompt": "a cat; x = 1 # \\\nsecond line", "workflow": '{"nodes": []}'}
PICTURE, SOUND = "showinfo@recorded", "ashowinfo@recorded"
"""Names of the filters in the recordings; the library draws new ones for every call."""
NAMED = {"webp_anim", "gif", "matroska,webm", *(name for form in FORMATS.values() for name in form.encoders)}
"""Names in ffmpeg's tables that the library looks for."""


def frames(count: int, height: int, width: int) -> Iterable[np.ndarray]:
    """Grey frames, (h, w, 3) uint8, that grow brighter."""
    return (np.full((height, width, 3), 20 * n, np.uint8) for n in range(count))


def silence(channels: int, seconds: float) -> dict:
    return {"waveform": np.zeros((1, channels, round(48_000 * seconds)), np.float32), "sample_rate": 48_000}


def make_clips(folder: Path) -> None:
    """Write the clips whose facts tests/test_video_ffmpeg_text.py lists."""

    def ours(name: str, fps: str, count: int, height: int, width: int, **options: object) -> Path:
        with VideoWriter(folder / name, fps, **options) as video:
            for frame in frames(count, height, width):
                video.write(frame)
        return folder / name

    def remade(name: str, *arguments: object) -> None:
        command = [ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments), str(folder / name)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)

    ours("sound.mp4", "24000/1001", 6, 47, 65, audio=silence(2, 0.25), metadata=METADATA)
    ours("loop.gif", "12.5", 5, 30, 40, metadata=METADATA)
    lossless = ours("lossless.mkv", "10", 5, 24, 32, format="ffv1-16bit-mkv", audio=silence(6, 0.5))
    source = ("-f", "lavfi", "-i", "testsrc=s=64x48:r=25:d=0.4")
    remade("alpha.webm", *source, "-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p")
    drops = "select='not(mod(n,3))+not(mod(n,5))'"
    remade("variable.mkv", *source, "-vf", drops, "-fps_mode", "vfr", "-c:v", "libx264", "-pix_fmt", "yuv420p")
    remade("plain.mp4", *source, "-c:v", "libx264", "-pix_fmt", "yuv420p")
    remade("rotated.mp4", "-display_rotation", 90, "-i", folder / "plain.mp4", "-c", "copy")
    (folder / "plain.mp4").unlink()
    late = ("-itsoffset", 0.4, "-i", lossless, "-i", lossless, "-map", "0:v", "-map", "1:a", "-c", "copy")
    remade("late.mkv", *late)
    remade("reordered.avi", *source, "-c:v", "mpeg4", "-bf", 2)
    (folder / "broken.mp4").write_bytes(b"\0" * 4096)


def record(exe: str, folder: Path) -> dict[str, str]:
    """Run the commands of t2v_models/video/probe.py and ffmpeg.py; "CLIP KIND" -> text."""

    def run(*arguments: str) -> tuple[str, str]:
        done = subprocess.run(
            [exe, "-hide_banner", "-nostdin", "-y", *arguments], capture_output=True, text=True, check=False
        )
        return scrubbed(done.stdout, folder), scrubbed(done.stderr, folder)

    texts = {}
    for clip in sorted(folder.iterdir()):
        source = input_options(Input(clip, file_url(clip)))
        texts[f"{clip.name} metadata"] = run("-v", "error", *source, "-f", "ffmetadata", "-")[0]
        code = ("-map", "0:v:0", "-c", "copy", "-f", "framecrc", "-")
        texts[f"{clip.name} packets"] = run("-v", "error", *source, *code)[0]
        texts[f"{clip.name} errors"] = run("-v", "error", *source, "-map", "0:v:0", "-f", "null", "-")[1]
        for kind, track, *filters in (("picture", "0:v:0", "-vf", PICTURE), ("sound", "0:a:0", "-af", SOUND)):
            code = ("-map", track, *filters, "-frames", "1", "-f", "null", "-")
            texts[f"{clip.name} {kind}"] = run("-v", "info", "-copyts", *source, *code)[1]
    texts["ffmpeg version"] = run("-version")[0]
    for kind in ("encoders", "demuxers"):
        texts[f"ffmpeg {kind}"] = cut_table(run(f"-{kind}")[0])
    return texts


def scrubbed(text: str, folder: Path) -> str:
    """Replace the folder and the addresses in memory; cut what an encoder writes about itself."""
    text = re.sub(r"User Data=[0-9a-f]+", "User Data=", text.replace(str(folder), "/clips"))
    return re.sub(r"^(\s*configuration:).*", r"\1", re.sub(r"0x[0-9a-f]{6,}\b(?=\])", "0x1", text), flags=re.MULTILINE)


def cut_table(text: str) -> str:
    """Keep the legend of a table, and the lines of what the library looks for."""
    legend, rule, entries = re.split(r"^( ?-+)\n", text, maxsplit=1, flags=re.MULTILINE)
    kept = [line for line in entries.splitlines() if line.split()[1:2] and line.split()[1] in NAMED]
    return "\n".join([legend + rule, *kept]) + "\n"


def read_recording(path: Path) -> dict[str, str]:
    """Read a file that this script wrote: "CLIP KIND" -> text."""
    sections = path.read_text("utf-8").split(HEADING)[1:]
    return {head: text for head, _, text in (section.partition("\n") for section in sections)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ffmpeg", nargs="+", help="programs to record")
    args = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        make_clips(Path(folder))
        for exe in args.ffmpeg:
            banner = subprocess.run([exe, "-version"], capture_output=True, text=True, check=True).stdout
            version = re.match(r"ffmpeg version n?(\d+(?:\.\d+)*)", banner)[1]
            texts = record(exe, Path(folder))
            whole = "".join(f"{HEADING}{head}\n{text}" for head, text in texts.items())
            (FOLDER / f"{version}.txt").write_text(whole, "utf-8", newline="\n")
            print(FOLDER / f"{version}.txt")


if __name__ == "__main__":
    main()
