"""Open any weights file as unread tensors: safetensors, PyTorch's zip and older pickles, indexes of shards.

The first bytes decide the format, never the name. A file that cannot be read raises `T2VError` with the file's name and
what to do.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import torch

from ..errors import AGAIN, T2VError
from .tensors import FileMap, LazyDict, LazyTensor, Stored

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
"""The endings of weights files; the content decides the format."""

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

MAX_HEADER = 100_000_000
"""The most bytes of a safetensors header, as in the safetensors library."""


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
    if is_index(path):
        return _read_shards(path)
    with path.open("rb") as file:
        head = file.read(4096)
    if not head:
        raise T2VError(f"{path} is empty. {AGAIN}")
    if head[:4] == b"PK\x03\x04" or head[:4] == b"PK\x05\x06":
        from .torch_files import read_zip

        return read_zip(path)
    if head[8:9] == b"{" or path.suffix == ".safetensors":
        _refuse_text(path, head)
        return _read_safetensors(path)
    _refuse_text(path, head)
    if head[:1] == b"\x80":
        from .torch_files import read_legacy

        return read_legacy(path)
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
            if not 2 <= size <= min(MAX_HEADER, path.stat().st_size):
                return {}
            metadata = json.loads(file.read(size)).get("__metadata__", {})
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}
    return {str(key): str(value) for key, value in metadata.items()} if isinstance(metadata, dict) else {}


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


def _read_safetensors(path: Path) -> LazyDict:
    """Open a safetensors file; checks that its header is sound and its tensors fill the file."""

    def damaged(why: str) -> T2VError:
        return T2VError(f"{path} is damaged or no safetensors file: {why}. {AGAIN}")

    file = FileMap(path)
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        if size > min(MAX_HEADER, file.size - 8):
            raise damaged(f"its header should have {size} bytes and the file has {file.size}")
        header = stream.read(size)
    try:
        entries = json.loads(header.decode("utf-8"), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise damaged(f"its header cannot be read ({error})") from error
    if not isinstance(entries, dict):
        raise damaged("its header is no table")
    entries.pop("__metadata__", None)
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
    try:
        dtype, shape, (begin, end) = _DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
        if dtype is None or not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
            raise ValueError
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(f"the entry of {name!r} cannot be read") from error
    if prod(shape) * dtype.itemsize != end - begin:
        raise damaged(f"{name!r} of shape {list(shape)} does not fill its {end - begin} bytes")
    return dtype, shape, begin, end


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name appears twice")
    return result


def _read_shards(path: Path) -> LazyDict:
    """Open every shard that an index names."""
    try:
        weight_map = json.loads(path.read_text("utf-8"))["weight_map"]
        shards = {name: str(shard) for name, shard in weight_map.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise T2VError(f"{path} is no index of a sharded model (it has no weight_map). {AGAIN}") from error
    tensors: LazyDict = {}
    for shard in sorted(set(shards.values())):
        if Path(shard).name != shard:
            raise T2VError(f"{path} names a shard outside its folder: {shard!r}. {AGAIN}")
        part = path.parent / shard
        if not part.is_file():
            raise T2VError(f"{path} names the shard {shard}, which is missing: download it into {path.parent}.")
        tensors.update(read_file(part))
    missing = [name for name in shards if name not in tensors]
    if missing:
        raise T2VError(f"{path} promises {missing[0]!r}, which none of its shards holds. {AGAIN}")
    return tensors
