"""Mutate video files: each is read, or gives one clear sentence; no other file or address is opened.

    python -m tests.fuzz.videos [--count 10000] [--seed 0] [--format mp4 …] [--engine ffmpeg]

A mutation truncates, flips bits, overwrites, inserts, removes or repeats bytes, writes extreme numbers where sizes and
times may stand, changes the texts inside, takes the part of another file, or puts a playlist in the file's place. The
count is for each format.
"""

from __future__ import annotations

import argparse
import http.server
import random
import struct
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from t2v_models.video import VideoWriter, still_png
from t2v_models.video.ffmpeg.process import ffmpeg_exe

from .run import Mutate, fuzz

FORMATS = {"mp4": "h264-mp4", "mkv": "ffv1-16bit-mkv", "webm": "vp9-webm", "gif": "gif", "webp": "webp"}
METADATA = {"prompt": {"1": {"class_type": "T2VTextEncode", "inputs": {"text": "a cat"}}}, "workflow": {"nodes": []}}


def originals() -> dict[str, bytes]:
    """Make undamaged files: name -> bytes."""
    files = {}
    random_numbers = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for ending, name in FORMATS.items():
            path = Path(folder) / f"clip.{ending}"
            sound = {
                "waveform": random_numbers.standard_normal((1, 2, 24_000)).astype(np.float32) / 9,
                "sample_rate": 48_000,
            }
            audio = sound if ending in ("mp4", "mkv", "webm") else None
            with VideoWriter(path, 12, format=name, metadata=METADATA, audio=audio) as video:
                for frame in pictures(6):
                    video.write(frame)
            files[path.name] = path.read_bytes()
        moving = Path(folder) / "moving.png"
        subprocess.run([ffmpeg_exe(), "-v", "error", "-i", Path(folder) / "clip.gif", "-f", "apng", moving], check=True)
        files["moving.png"] = moving.read_bytes()
        still = still_png(Path(folder) / "still.png", pictures(1)[0], {key: "{}" for key in METADATA})
        files["still.png"] = still.read_bytes()
    return files


def pictures(count: int) -> list[np.ndarray]:
    """(32, 48, 3) uint8: a square that moves over noise."""
    noise = np.random.default_rng(1).integers(0, 40, (32, 48, 3), np.uint8)
    frames = [noise.copy() for _ in range(count)]
    for n, frame in enumerate(frames):
        frame[8:20, 4 * n : 4 * n + 12] = (200, 60, 30)
    return frames


Mutation = Callable[[random.Random, bytes, dict[str, bytes]], bytes]
"""(random numbers, the file, all files) -> the mutated file."""

EXTREMES = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


def somewhere(rng: random.Random, data: bytes) -> int:
    """A position, most often near the beginning or the end, where headers and indices stand."""
    near = min(len(data), 2000)
    return rng.choice([rng.randrange(near), len(data) - 1 - rng.randrange(near), rng.randrange(len(data))])


def truncated(rng: random.Random, data: bytes, files: dict[str, bytes]) -> bytes:
    return data[: rng.choice([rng.randrange(1, len(data)), rng.randrange(1, 200), len(data) - 1 - rng.randrange(64)])]


def flipped(rng: random.Random, data: bytes, files: dict[str, bytes]) -> bytes:
    mutated = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        mutated[somewhere(rng, data)] ^= 1 << rng.randrange(8)
    return bytes(mutated)


def overwritten(rng: random.Random, data: bytes, files: dict[str, bytes]) -> bytes:
    at = somewhere(rng, data)
    count = rng.randrange(1, 200)
    junk = rng.choice([bytes(count), rng.randbytes(count), b"\xff" * count, b"A" * count, b"\n" * count])
    return data[:at] + junk + data[at + len(junk) :]


def resized(rng: random.Random, data: bytes, files: dict[str, bytes]) -> bytes:
    """Insert, remove or repeat bytes."""
    at, count = somewhere(rng, data), rng.choice([1, 4, 8, 100, 4000])
    part = rng.choice(
        [b"", data[at : at + count] * rng.choice([2, 3, 50]), rng.randbytes(count) + data[at : at + count]]
    )
    return data[:at] + part + data[at + count :]


def extreme(rng: random.Random, data: bytes, files: dict[str, bytes]) -> bytes:
    """Write extreme numbers of 1, 2, 4 or 8 bytes, in both orders."""
    mutated = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 3])):
        size = rng.choice([1, 2, 4, 4, 4, 8])
        value = rng.choice(EXTREMES) * rng.choice([1, 1, 1 << 32]) % (1 << 8 * size)
        at = somewhere(rng, data)
        mutated[at : at + size] = value.to_bytes(size, rng.choice(["big", "little"]))
    return bytes(mutated)


def boxes(rng: random.Random, data: bytes, files: dict[str, bytes]) -> bytes:
    """Change the number before or behind a name of four letters: the size of a box or a chunk, a width, a count."""
    names = [n for n in range(4, len(data) - 24) if data[n : n + 4].isalpha() and data[n - 4 : n - 2] == b"\0\0"]
    if not names:
        return extreme(rng, data, files)
    mutated = bytearray(data)
    at = rng.choice(names) + rng.choice([-4, -4, 4, 8, 12, 16])
    mutated[at : at + 4] = (rng.choice(EXTREMES) & 0xFFFFFFFF).to_bytes(4, rng.choice(["big", "little"]))
    return bytes(mutated)


HOSTILE_TEXTS = (
    b'{"a":' * 20_000, b"[" * 100_000, b'{"prompt": NaN, "workflow": {"nodes": [1e999999999]}}', b"\xff\xfe\0\xd8" * 40,
    b"t2v_frame_rate=1e999999999\n", b"t2v_size=999999x999999\n", b"\n  Stream #0:0: Video: h264, yuv420p, 9x9, 5 fps\n",
    b"x" * 300_000, b"%n%s%d" * 20, b"\x1b[2J" * 20, b"file:///etc/passwd", b"concat:/etc/passwd|/etc/hosts",
)  # fmt: skip


def texts(rng: random.Random, data: bytes, files: dict[str, bytes]) -> bytes:
    """Put a hostile text where one stands; lengths are then right or wrong."""
    at = data.find(rng.choice([b"prompt", b"workflow", b"encoder", b"Lavf", b"T2VTextEncode"]))
    if at < 0:
        return overwritten(rng, data, files)
    text = rng.choice(HOSTILE_TEXTS)
    if rng.random() < 0.5:
        text = text[:40]
        return data[:at] + text + data[at + len(text) :]
    return data[:at] + text + data[at:]


def crossed(rng: random.Random, data: bytes, files: dict[str, bytes]) -> bytes:
    """The head of one file with the tail of another, or both behind each other."""
    other = files[rng.choice(sorted(files))]
    return (
        data[: rng.randrange(1, len(data))] + other[rng.randrange(len(other)) :] if rng.random() < 0.7 else data + other
    )


def png_chunks(rng: random.Random, data: bytes, files: dict[str, bytes]) -> bytes:
    """Change, add or repeat PNG chunks, with checksums that are right; other files get other mutations."""
    if not data.startswith(b"\x89PNG"):
        return boxes(rng, data, files)
    chunks, at = [], 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    which = rng.randrange(len(chunks))
    kind, body = chunks[which]
    bomb = zlib.compress(bytes(50_000_000))
    choice = rng.randrange(7)
    if choice == 0:
        chunks[which] = (kind, extreme(rng, body or b"\0" * 8, files))
    elif choice == 1:
        chunks.insert(1, (b"zTXt", b"workflow\0\0" + bomb))
    elif choice == 2:
        chunks.insert(1, (b"iTXt", b"prompt\0\1\0\0\0" + bomb))
    elif choice == 3:
        width, height = rng.choice(EXTREMES[1:]), rng.choice(EXTREMES[1:])
        chunks[0] = (b"IHDR", struct.pack(">II", width & 0x7FFFFFFF, height & 0x7FFFFFFF) + chunks[0][1][8:])
    elif choice == 4:
        chunks += [chunks[which]] * rng.choice([1, 1000])
    elif choice == 5:
        chunks.insert(1, (b"tEXt", rng.choice([b"prompt\0", b"", b"\0"]) + rng.choice(HOSTILE_TEXTS)))
    else:
        del chunks[which]
    return data[:8] + b"".join(
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big") for kind, body in chunks
    )


MUTATIONS: tuple[Mutation, ...] = (
    truncated, flipped, flipped, overwritten, resized, extreme, extreme, boxes, boxes, texts, crossed, png_chunks,
)  # fmt: skip


def playlists(canary: Path, port: int) -> list[bytes]:
    """Texts that make players open another file or an address."""
    address = f"http://127.0.0.1:{port}/a.mp4"
    texts = []
    for target in (canary.as_uri(), str(canary), address, f"tcp://127.0.0.1:{port}", f"concat:{canary}|{address}"):
        texts += [
            f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n",
            f"ffconcat version 1.0\nfile '{target}'\n",
            f"<MPD><Period><AdaptationSet><Representation><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>",
            f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n",
            f"[playlist]\nFile1={target}\nNumberOfEntries=1\n",
            f'<smil><body><video src="{target}"/></body></smil>',
            f"RTSPtext\n{target}\n",
            f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{target}"/></svg>',
        ]
    return [text.encode() for text in texts]


def mutations_of(names: list[str], others: list[bytes]) -> Mutate:
    """Return the function that makes the file number `seed`; a few are playlists, the others mutations of `names`."""

    def mutate(seed: int, files: dict[str, bytes], witness: str) -> tuple[str, str, bytes]:
        rng = random.Random(seed)
        name = names[seed % len(names)]
        if rng.random() < 0.02:
            return "playlist", name, rng.choice(others)
        mutation = rng.choice(MUTATIONS)
        return mutation.__name__, name, mutation(rng, files[name], files)

    return mutate


class Bait:
    """A server and a clip that no reading may reach: `touched` lists the requests."""

    def __init__(self, folder: Path) -> None:
        touched = self.touched = []  # type: list[str]

        class Handler(http.server.BaseHTTPRequestHandler):
            def handle(self) -> None:
                touched.append(str(self.client_address))

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.canary = folder / "canary.mp4"
        with VideoWriter(self.canary, 5, format="h264-mp4") as video:
            video.write(np.zeros((64, 64, 3), np.uint8))

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="files of each format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", nargs="*", help="endings; default all")
    parser.add_argument("--engine", choices=("ffmpeg", "pyav"), default="pyav", help="what reads them")
    parser.add_argument("--keep", type=Path, help="a folder for the files that failed")
    args = parser.parse_args()
    files = originals()
    names = sorted(name for name in files if not args.format or name.rpartition(".")[2] in args.format)
    with tempfile.TemporaryDirectory() as folder:
        bait = Bait(Path(folder))
        mutate = mutations_of(names, playlists(bait.canary, bait.port))
        seeds = range(args.seed, args.seed + args.count * len(names))
        report = fuzz(args.engine, files, mutate, seeds, Path(folder), args.keep, print_each=True)
        bait.close()
    print(report.table())
    print(f"requests at the bait: {bait.touched}")
    return 1 if report.failures or bait.touched else 0


if __name__ == "__main__":
    sys.exit(main())
