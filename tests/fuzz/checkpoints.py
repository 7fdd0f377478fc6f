"""Mutate model files: each gives one clear error that names the file, or loads; no code in it is executed.

    python -m tests.fuzz.checkpoints [--count 10000] [--seed 0] [--keep FOLDER]

A mutation truncates, flips bits (anywhere, or in the header or pickle), overwrites bytes, renames keys, changes shapes
or types, drops keys, hides code in a pickle, or puts something else in the file's place. A file counts as handled where
`load_unet` raises `T2VError` with the file's name in it, or returns the network with its weights (but for numbers that
were changed in place). Anything else (another exception, other weights, a hang, a crash, a side effect) is a failure.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
import random
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from t2v_models.checkpoints import load_unet
from t2v_models.errors import T2VError
from t2v_models.unet import UNet3D

from ..support.checkpoints import SMALL, all_in_one, in_layout, unet_weights
from .run import command

LIMIT = 20.0
"""Seconds of the processor's time after which loading a file of a megabyte counts as a hang."""


TINY = dataclasses.replace(SMALL, channels=(32, 32), head_dim=8, context_dim=16)
TOLERATED = 128
"""Numbers that a mutation may change where they are stored (no format has a checksum that loading could afford)."""


class Touch:
    """A pickle that creates a file when it is executed."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.path}",)


def originals() -> dict[str, bytes]:
    """Make undamaged files of every form: name -> bytes."""
    files = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"

        def add(name: str, write: Callable[[Path], object]) -> None:
            write(path)
            files[name] = path.read_bytes()

        for layout in ("diffusers", "modelscope", "videocrafter"):
            tensors = {name: tensor.half() for name, tensor in in_layout(layout, TINY).items()}
            add(f"{layout}.safetensors", lambda p, t=tensors: save_file(t, p))
            add(f"{layout}.pth", lambda p, t=tensors: torch.save(t, p))
            add(f"{layout}.old.pth", lambda p, t=tensors: torch.save(t, p, _use_new_zipfile_serialization=False))
        whole = {"state_dict": {n: t.half() for n, t in all_in_one(TINY).items()}, "epoch": 3, "callbacks": {}}
        add("model.ckpt", lambda p: torch.save(whole, p))
    return files


Mutation = Callable[[random.Random, bytes, str, str], bytes]
"""(random numbers, the file, its name, the path that executed code would create) -> the mutated file."""


def truncated(rng: random.Random, data: bytes, name: str, witness: str) -> bytes:
    return data[: rng.choice([rng.randrange(len(data)), rng.randrange(200), len(data) - 1 - rng.randrange(64)])]


def flipped(rng: random.Random, data: bytes, name: str, witness: str) -> bytes:
    mutated = bytearray(data)
    for _ in range(rng.choice([1, 1, 8, 64])):
        mutated[rng.randrange(len(mutated))] ^= 1 << rng.randrange(8)
    return bytes(mutated)


def flipped_header(rng: random.Random, data: bytes, name: str, witness: str) -> bytes:
    """Flip bits of the part that describes the tensors, and of a zip's directory at the end."""
    mutated = bytearray(data)
    reach = min(len(data), 40_000)
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(reach) if rng.random() < 0.7 else len(data) - 1 - rng.randrange(reach)
        mutated[at] ^= 1 << rng.randrange(8)
    return bytes(mutated)


def overwritten(rng: random.Random, data: bytes, name: str, witness: str) -> bytes:
    at = rng.randrange(min(len(data), 60_000) if rng.random() < 0.6 else len(data))
    junk = rng.choice(
        [bytes(rng.randrange(1, 200)), rng.randbytes(rng.randrange(1, 200)), b"\xff" * rng.randrange(1, 99)]
    )
    return data[:at] + junk + data[at + len(junk) :]


def inserted(rng: random.Random, data: bytes, name: str, witness: str) -> bytes:
    at = rng.randrange(min(len(data), 60_000))
    return data[:at] + rng.randbytes(rng.randrange(1, 20)) + data[at:]


def rewritten(rng: random.Random, data: bytes, name: str, witness: str) -> bytes:
    """Rename, drop or add keys, or change shapes or types, in an undamaged file."""
    layout = rng.choice(["diffusers", "modelscope", "videocrafter"])
    tensors = dict(in_layout(layout, TINY))
    for _ in range(rng.choice([1, 1, 3])):
        key = rng.choice(list(tensors))
        tensor = tensors.pop(key)
        kind = rng.randrange(8)
        if kind == 0:
            tensors[key[:-1]] = tensor
        elif kind == 1:
            at = rng.randrange(len(key))
            tensors[key[:at] + rng.choice("abxyz._0123456789") + key[at + 1 :]] = tensor
        elif kind == 2:
            tensors[key] = torch.cat([tensor, tensor])
        elif kind == 3:
            tensors[key] = tensor.flatten()[: rng.randrange(tensor.numel()) + 0].clone()
        elif kind == 4:
            tensors[key] = tensor.to(rng.choice([torch.int64, torch.int8, torch.float64, torch.bool]))
        elif kind == 5:
            tensors[key] = tensor.unsqueeze(rng.randrange(tensor.ndim + 1)).contiguous()
        elif kind == 6:
            tensors[key] = tensor.flatten().clone()
        else:
            pass  # dropped
    buffer = io.BytesIO()
    if rng.random() < 0.5:
        torch.save(tensors, buffer)
        return buffer.getvalue()
    from safetensors.torch import save

    return save(tensors)


def header_edited(rng: random.Random, data: bytes, name: str, witness: str) -> bytes:
    """Write a wrong number, name or type into a safetensors header, whose length stays right."""
    tensors = {name: tensor.half() for name, tensor in in_layout("modelscope", TINY).items()}
    from safetensors.torch import save

    data = save(tensors)
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    entry = header[rng.choice([key for key in header if key != "__metadata__"])]
    change = rng.randrange(7)
    if change == 0:
        entry["data_offsets"][rng.randrange(2)] += rng.choice([-2, 2, 1 << 40, -(1 << 40), 64])
    elif change == 1:
        entry["shape"] = rng.choice(
            [[], [-1], [1 << 62, 1 << 62], [0], ["a"], None, [1.5], entry["shape"][::-1], [True]]
        )
    elif change == 2:
        entry["dtype"] = rng.choice(["F32", "I16", "F17", None, 3, "F64", "F8_E4M3", []])
    elif change == 3:
        entry.pop(rng.choice(list(entry)))
    elif change == 4:
        entry["data_offsets"] = rng.choice([[0], [], None, "ab", [0, 1, 2], {"a": 1}, [None, None]])
    elif change == 5:
        header = rng.choice([[], {}, None, 3, {"a": 3}, {"a": {"b": {}}}])
    else:
        header["__metadata__"] = rng.choice([None, 3, ["x"], {"a": {"b": 1}}])
    encoded = json.dumps(header).encode()
    if rng.random() < 0.1:
        encoded = b"[" * 100_000
    return len(encoded).to_bytes(8, "little") + encoded + data[8 + size :]


def with_code(rng: random.Random, data: bytes, name: str, witness: str) -> bytes:
    """Write a pickle that would run a command: alone, among tensors, or in a zip as PyTorch writes it."""
    kind = rng.randrange(4)
    tensors = in_layout("modelscope", TINY)
    if kind == 0:
        return pickle.dumps(Touch(witness), protocol=rng.randrange(6))
    if kind == 1:
        buffer = io.BytesIO()
        torch.save({"payload": Touch(witness), **tensors}, buffer, _use_new_zipfile_serialization=rng.random() < 0.5)
        return buffer.getvalue()
    if kind == 2:
        buffer = io.BytesIO()
        torch.save(Touch(witness), buffer)
        return buffer.getvalue()
    source = io.BytesIO()
    torch.save(tensors, source)
    target = io.BytesIO()
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            content = old.read(info)
            if info.filename.endswith("data.pkl"):
                command = f"cposix\nsystem\n(S'touch {witness}'\ntR0".encode()
                content = content[:2] + command + content[2:]
            new.writestr(info.filename, content)
    return target.getvalue()


def something_else(rng: random.Random, data: bytes, name: str, witness: str) -> bytes:
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("model/readme.txt", "hello")
    return rng.choice(
        [
            b"",
            b"<!DOCTYPE html><html><title>403 Forbidden</title></html>",
            b"\n\n  <html lang='en'>",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n",
            b'{"error": "not found"}',
            b"GGUF" + bytes(100),
            zipped.getvalue(),
            rng.randbytes(rng.randrange(1, 5000)),
            b"\x80\x02" + rng.randbytes(rng.randrange(1, 500)),
            b"PK\x03\x04" + rng.randbytes(rng.randrange(1, 500)),
            pickle.dumps({"a": [1, 2, {"b": None}]}),
            pickle.dumps(["x" * 1000] * 1000, protocol=rng.randrange(6)),
            b"\x80\x02" + b"(" * 10000 + b".",
            b"\x80\x02" + b")" + b"\x85" * 300_000 + b"}" + b"2." ,
            b"\x80\x04]" + b"\x94" + b"h\x00a" * 10000 + b".",
            (1 << 62).to_bytes(8, "little") + b"{}",
            b"\x80\x02r\xff\xff\xff\xff.",
            b"\x80\x02\x8b\xff\xff\xff\x7f.",
        ]
    )  # fmt: skip


MUTATIONS: tuple[Mutation, ...] = (
    truncated, flipped, flipped_header, flipped_header, overwritten, inserted,
    rewritten, header_edited, with_code, something_else,
)  # fmt: skip


def mutate(seed: int, files: dict[str, bytes], witness: str) -> tuple[str, str, bytes]:
    """Make the file number `seed`: (mutation, name, bytes)."""
    rng = random.Random(seed)
    name = rng.choice(sorted(files))
    mutation = MUTATIONS[seed % len(MUTATIONS)]
    return mutation.__name__, name, mutation(rng, files[name], name, witness)


def differing(unet: UNet3D) -> int:
    """Count the numbers that differ from those of the undamaged file."""
    if unet.config != TINY:
        return sys.maxsize
    count = 0
    for name, tensor in unet.state_dict().items():
        wanted = (
            unet_weights(TINY)[name].half().to(tensor.dtype)
            if tensor.dtype != torch.float32
            else unet_weights(TINY)[name]
        )
        count += int((tensor != wanted).sum())
    return count


def checked(path: Path) -> str:
    """Load the file; returns "loaded" where the weights are right. T2VError where it is refused."""
    different = differing(load_unet(path))
    return "loaded" if different <= TOLERATED else f"loaded wrongly: {different} numbers differ"


def outcome(path: Path, witness: Path) -> str:
    """Load the file in this process; returns "loaded", "refused", or the failure."""
    start = time.process_time()
    try:
        result = checked(path)
    except T2VError as error:
        message = str(error)
        result = "refused"
        if str(path) not in message or "\n" in message or len(message) > 1000:
            result = f"unclear error: {message[:200]!r}"
    except Exception as error:
        result = f"{type(error).__name__}: {str(error)[:200]}"
    if witness.exists():
        result = "EXECUTED"
        witness.unlink()
    if time.process_time() - start > LIMIT:
        result = f"slow: {time.process_time() - start:.0f} s"
    return result


if __name__ == "__main__":
    sys.exit(command(__doc__, "checkpoint", originals(), mutate))
