"""Open any weights file as unread tensors: safetensors, PyTorch's zip and older pickles, indexes of shards.

The first bytes decide the format, never the name. A file that cannot be read raises `T2VError` with the file's name and
what to do.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import torch

from ..errors import AGAIN, T2VError, is_out_of_memory
from ..foreign import MOST_JSON, Budget, parse_json, quoted, read_json_file
from .tensors import LONGEST_NAME, MAX_DIMENSIONS, MAX_SIZE, LazyDict, LazyTensor, SourceFile, Stored

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
"""The endings of weights files; the content decides the format."""

LONGEST_SHARD = 255
"""The most characters of a shard's name, as on most disks."""

_DTYPES: dict[str, torch.dtype | None] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": getattr(torch, "float8_e4m3fn", None),
    "F8_E5M2": getattr(torch, "float8_e5m2", None),
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items() if dtype is not None}
"""PyTorch's types as safetensors calls them."""


def read_file(path: str | os.PathLike[str]) -> LazyDict:
    """Open one file; returns its tensors by name, unread. Those in nested dictionaries get dotted names.

    A file that ends in ``.index.json`` gives the tensors of all its shards. A list of tensors (some LoRA files) gives
    the names "0", "1", ….

    Raises:
        T2VError: where it is missing, damaged or no weights file.
    """
    path = Path(path)
    if path.is_dir():
        raise T2VError(f"{path} is a folder, and a weights file is wanted: give one of its files.")
    if not path.is_file():
        raise T2VError(f"{path} does not exist: check the name and the folder.")
    with reading(path):
        budget = Budget(path)
        return _read_shards(path, budget) if is_index(path) else _read_tensors(path, budget)


@contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what a reader of foreign bytes may raise beside `T2VError` into a T2VError that names the file."""
    try:
        yield
    except T2VError:
        raise
    except OSError as error:
        raise T2VError(
            f"{path} cannot be read ({quoted(error)}): check the disk and the file's permissions."
        ) from error
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, struct.error) as error:
        if is_out_of_memory(error):
            raise
        raise T2VError(f"{path} is damaged ({type(error).__name__}: {quoted(error)}). {AGAIN}") from error


def _read_tensors(path: Path, budget: Budget) -> LazyDict:
    """Open one file of any format but an index."""
    with path.open("rb") as file:
        head = file.read(4096)
    if not head:
        raise T2VError(f"{path} is empty. {AGAIN}")
    if head[:4] == b"PK\x03\x04" or head[:4] == b"PK\x05\x06":
        from .torch_files import read_zip

        return read_zip(path, budget)
    if head[8:9] == b"{" or path.suffix == ".safetensors":
        _refuse_text(path, head)
        return _read_safetensors(path, budget)
    _refuse_text(path, head)
    if head[:1] == b"\x80":
        from .torch_files import read_legacy

        return read_legacy(path, budget)
    if head[257:262] == b"ustar" or head[:7] == b"storage":
        raise T2VError(f"{path} is a tar file, PyTorch's format before 2017: load and save it again with PyTorch.")
    others = {b"GGUF": "a GGUF file", b"\x1f\x8b": "a gzip archive", b"Rar!": "a RAR archive", b"7z\xbc\xaf": "a 7-Zip"}
    for magic, name in others.items():
        if head.startswith(magic):
            raise T2VError(f"{path} is {name}, and a safetensors or PyTorch file is wanted.")
    raise T2VError(f"{path} is no weights file: neither safetensors nor a PyTorch pickle, or damaged. {AGAIN}")


def is_index(path: Path) -> bool:
    """Whether a name is that of a list of shards: "model.safetensors.index.json", or with a variant before ".json"."""
    return re.search(r"\.index(\.\w+)?\.json$", path.name) is not None


def file_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read the texts in the header (``__metadata__``) of a safetensors file; empty for any other file."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 2 <= size <= min(MOST_JSON, path.stat().st_size):
                return {}
            metadata = parse_json(file.read(size), path).get("__metadata__", {})
    except (OSError, ValueError, AttributeError):
        return {}
    return (
        {str(key): value for key, value in metadata.items() if isinstance(value, str)}
        if isinstance(metadata, dict)
        else {}
    )


def _refuse_text(path: Path, head: bytes) -> None:
    """Raise T2VError where a file begins as a web page, a Git LFS pointer or JSON."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:512].lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")):
        raise T2VError(
            f"{path} is a web page saved under a model's name, no model: the download gave a login or error page. "
            "Download the file itself."
        )
    if start.startswith(b"version https://git-lfs"):
        raise T2VError(f"{path} is a Git LFS pointer, not the model: run `git lfs pull`, or download the file itself.")
    if start[:1] in (b"{", b"[") and start[1:2] in (b"", b'"', b"\n", b" ", b"\r"):
        raise T2VError(f"{path} is a JSON text, no weights. {AGAIN}")


def _read_safetensors(path: Path, budget: Budget) -> LazyDict:
    """Open a safetensors file; checks that its header is sound and its tensors fill the file."""

    def damaged(why: str) -> T2VError:
        return T2VError(f"{path} is damaged or no safetensors file: {why}. {AGAIN}")

    file = SourceFile(path)
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        if size > min(MOST_JSON, file.size - 8):
            raise damaged(f"its header should have {size} bytes, of {MOST_JSON} at most, and the file has {file.size}")
        header = stream.read(size)
    entries = parse_json(header, f"{path} is damaged or no safetensors file: its header", pairs_hook=_no_duplicates)
    if not isinstance(entries, dict):
        raise damaged("its header is no table")
    entries.pop("__metadata__", None)
    budget.spend("tensors", len(entries))
    tensors, end_of_data = {}, 0
    for name, (dtype, shape, begin, end) in sorted(
        ((name, _entry(name, entry, damaged)) for name, entry in entries.items()), key=lambda item: item[1][2:]
    ):
        if begin != end_of_data:
            raise damaged("its tensors overlap or leave gaps")
        end_of_data = end
        tensors[name] = LazyTensor.in_file(Stored(file, 8 + size + begin, end - begin), dtype, shape)
    missing = 8 + size + end_of_data - file.size
    if missing:
        raise damaged(f"{missing} bytes are missing at the end" if missing > 0 else f"{-missing} bytes are too many")
    return {name: tensors[name] for name in entries}


def _entry(name: str, entry: Any, damaged: Callable[[str], T2VError]) -> tuple[torch.dtype, tuple[int, ...], int, int]:
    """Check a tensor's entry in a header; returns its type, its shape, and where its bytes begin and end."""
    if len(name) > LONGEST_NAME:
        raise damaged(f"a tensor is called {quoted(name)}")
    try:
        dtype, shape, (begin, end) = _DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
        if dtype is None or len(shape) > MAX_DIMENSIONS:
            raise ValueError
        if not all(type(n) is int and 0 <= n <= MAX_SIZE for n in (*shape, begin, end)):
            raise ValueError
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(f"the entry of {quoted(name)} cannot be read") from error
    if prod(shape) * dtype.itemsize != end - begin:
        raise damaged(f"{quoted(name)} of shape {quoted(list(shape))} does not fill its {end - begin} bytes")
    return dtype, shape, begin, end


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name appears twice")
    return result


def shards_of(index: Path) -> dict[str, str]:
    """Read an index: the name of each tensor, and that of its shard.

    Raises:
        T2VError: where it is no index, or names a shard that is no weights file in its folder.
    """
    values = read_json_file(index)
    shards = values.get("weight_map") if isinstance(values, dict) else None
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise T2VError(f"{index} is no index of a sharded model (it has no weight_map). {AGAIN}")
    for shard in set(shards.values()):
        if Path(shard).name != shard or len(shard) > LONGEST_SHARD:
            raise T2VError(f"{index} names a shard outside its folder: {quoted(shard)}. {AGAIN}")
        if not shard.endswith(SUFFIXES):
            raise T2VError(f"{index} names a shard that is no weights file: {quoted(shard)}. {AGAIN}")
    return shards


def _read_shards(path: Path, budget: Budget) -> LazyDict:
    """Open every shard that an index names."""
    shards = shards_of(path)
    files = sorted(set(shards.values()))
    budget.spend("shards", len(files))
    tensors: LazyDict = {}
    for shard in files:
        part = path.parent / shard
        if not part.is_file():
            raise T2VError(f"{path} names the shard {quoted(shard)}, which is missing: download it into {path.parent}.")
        if not _is_within(part, path.parent):
            raise T2VError(
                f"{path} names a shard outside its folder: {quoted(shard)} is a link. Put the file itself there."
            )
        tensors.update(_read_tensors(part, budget))
    missing = [name for name in shards if name not in tensors]
    if missing:
        raise T2VError(f"{path} promises {quoted(missing[0])}, which none of its shards holds. {AGAIN}")
    return tensors


def _is_within(file: Path, folder: Path) -> bool:
    """Whether a file lies in a folder, links followed, or is a link into the cache of Hugging Face around the folder."""
    target, folder = file.resolve(), folder.resolve()
    return target.parent == folder or (target.parent.name == "blobs" and target.parent.parent in folder.parents)
