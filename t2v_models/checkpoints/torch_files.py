"""Open PyTorch's own files, the zip archive and the older stream of pickles, without running code in them."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import IO, Any, cast

import torch

from ..errors import AGAIN, T2VError
from ..foreign import Budget, quoted
from . import pickles
from .tensors import (
    LONGEST_NAME,
    MAX_DIMENSIONS,
    MAX_SIZE,
    LazyDict,
    LazyTensor,
    SourceFile,
    Stored,
    contiguous_stride,
    reach,
)

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""The number with which files from before PyTorch 1.6 begin."""

_WINDOWS = (1 << 20, 1 << 24, 1 << 27)
"""Bytes of a file that are read to interpret a pickle; more of them where it does not end in the first."""

_MAX_DIRECTORY = 1 << 23
"""The most bytes of a zip archive's table of contents; a model takes a hundred for each tensor."""


_MAX_DEPTH = 6
"""How deep dictionaries are searched for tensors."""

_MOST_SHARED = 4
"""How many times the file's bytes its tensors may take, where several share their numbers."""


class _Storage:
    """A storage that a pickle names; in older files its place follows later."""

    __slots__ = ("dtype", "key", "numel")

    def __init__(self, key: str, dtype: torch.dtype, numel: int) -> None:
        self.key, self.dtype, self.numel = key, dtype, numel


class _Tensor:
    """A tensor as a pickle describes it."""

    __slots__ = ("dtype", "offset", "shape", "storage", "stride")

    def __init__(
        self,
        storage: _Storage,
        offset: int,
        shape: tuple[int, ...],
        stride: tuple[int, ...],
        dtype: torch.dtype | None = None,
    ) -> None:
        self.storage, self.offset, self.shape, self.stride = storage, offset, shape, stride
        self.dtype = dtype or storage.dtype


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any, dtype: Any = None) -> Any:
    if not isinstance(storage, _Storage):
        return pickles.Opaque("tensor")
    numbers = (offset, *size, *stride) if len(size) == len(stride) <= MAX_DIMENSIONS else (-1,)
    if not all(type(n) is int and 0 <= n <= MAX_SIZE for n in numbers):
        raise pickles.DamagedPickle("its pickle describes an impossible tensor")
    return _Tensor(storage, offset, tuple(size), tuple(stride), dtype)


def _rebuild_tensor_v3(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, dtype: Any, *rest: Any
) -> Any:
    kind = getattr(torch, dtype.name.removeprefix("torch."), None) if isinstance(dtype, pickles.Global) else None
    if not isinstance(kind, torch.dtype):
        return pickles.Opaque("tensor")
    return _rebuild_tensor(storage, offset, size, stride, dtype=kind)


def _rebuild_from_type(function: Any, kind: Any, args: Any, state: Any) -> Any:
    known = _TENSORS.get(function.name) if isinstance(function, pickles.Global) else None
    return known(*args) if known and isinstance(args, tuple) else pickles.Opaque("tensor")


_TENSORS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **_TENSORS,
    "collections.OrderedDict": lambda items=(): {k: v for k, v in items if isinstance(k, str)},
    "torch.Size": lambda sizes=(): tuple(sizes),
    "torch._utils._rebuild_parameter": lambda data, *rest: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *rest: data,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
}


def _storage_of(reference: Any) -> _Storage:
    """Parse the persistent id of a storage: ("storage", class, key, place, elements), and in old files a view of it."""
    if not isinstance(reference, tuple) or not 5 <= len(reference) <= 6:
        raise pickles.DamagedPickle("its pickle names an impossible storage")
    kind, storage_class, key, _place, numel, *view = reference
    name = storage_class.name.rsplit(".", 1)[-1] if isinstance(storage_class, pickles.Global) else ""
    if kind != "storage" or type(numel) is not int or not 0 <= numel <= MAX_SIZE or not isinstance(key, (str, int)):
        raise pickles.DamagedPickle("its pickle names an impossible storage")
    if name not in _STORAGES:
        raise pickles.DamagedPickle(
            f"it holds numbers of a kind that no supported model uses ({quoted(name) or 'unknown'})"
        )
    if view and view[0] is not None:
        raise pickles.DamagedPickle("it was saved by a PyTorch older than 0.4: load and save it again with PyTorch")
    return _Storage(str(key), _STORAGES[name], numel)


def _place(file: SourceFile, budget: Budget, value: Any, places: dict[str, Stored]) -> LazyDict:
    """Collect the tensors in a loaded object, by dotted names; a container that is met again is not entered again."""
    tensors: LazyDict = {}
    seen: set[int] = set()
    size = 0

    def add(name: str, tensor: LazyTensor) -> None:
        budget.spend("tensors")
        budget.spend("characters of names", len(name))
        tensors[name] = tensor

    def visit(value: Any, name: str, depth: int) -> None:
        nonlocal size
        if isinstance(value, _Tensor):
            add(name, _to_lazy(file.path, name, value, places))
            size += reach(value.shape, value.stride) * value.dtype.itemsize
        elif name == "step" and type(value) is int and abs(value) < 1 << 62:
            add(name, LazyTensor.of(torch.tensor(value)))  # distinguishes VGen's models
        elif depth >= _MAX_DEPTH or id(value) in seen:
            return
        elif isinstance(value, dict):
            seen.add(id(value))
            for key, item in value.items():
                if not key.startswith("optimizer") and len(key) <= LONGEST_NAME:
                    visit(item, f"{name}.{key}" if name else key, depth + 1)
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], _Tensor):
            seen.add(id(value))
            for index, item in enumerate(value):
                visit(item, f"{name}.{index}" if name else str(index), _MAX_DEPTH)

    visit(value, "", 0)
    if set(tensors) <= {"step"}:
        raise T2VError(f"{file.path} holds no tensors (its pickle holds something else): give a model's weights.")
    if size > _MOST_SHARED * file.size:
        raise T2VError(
            f"{file.path} is damaged: its tensors take {size:,} bytes and the file has {file.size:,}. {AGAIN}"
        )
    return tensors


def _to_lazy(path: Path, name: str, tensor: _Tensor, places: dict[str, Stored]) -> LazyTensor:
    """Find a tensor's numbers in the file; T2VError where they are missing, cut short or overlap."""
    stored, what, shape = places.get(tensor.storage.key), quoted(name), quoted(tensor.shape)
    if stored is None:
        raise T2VError(f"{path} is damaged: the numbers of {what} are missing. {AGAIN}")
    size = tensor.dtype.itemsize
    last = tensor.offset + reach(tensor.shape, tensor.stride)
    if prod(tensor.shape) and last * size > stored.length:
        raise T2VError(f"{path} is damaged: {what} of shape {shape} is cut short. {AGAIN}")
    if prod(tensor.shape) * size > max(stored.length, 1):
        raise T2VError(f"{path} is damaged: {what} has shape {shape}, more than is stored. {AGAIN}")
    if _overlaps(tensor.shape, tensor.stride):
        raise T2VError(f"{path} is damaged: the numbers of {what} overlap. {AGAIN}")
    stride = tensor.stride if prod(tensor.shape) else contiguous_stride(tensor.shape)
    return LazyTensor.in_file(stored, tensor.dtype, tensor.shape, tensor.offset, stride)


def _overlaps(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Whether two elements have one place in memory, which no model's weights have."""
    reach = 1
    for step, size in sorted((step, size) for step, size in zip(stride, shape, strict=True) if size > 1):
        if step < reach:
            return True
        reach = step * size
    return False


class _ZipFile(io.FileIO):
    """A zip archive whose table of contents is short: `zipfile` reads the whole of it at once, and keeps every entry."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MAX_DIRECTORY:
            raise zipfile.BadZipFile("its table of contents is too long to be true")
        return super().read(size)


def read_zip(path: Path, budget: Budget) -> LazyDict:
    """Open a file that `torch.save` wrote since PyTorch 1.6: a zip archive of a pickle and the numbers.

    Raises:
        T2VError: where it is damaged, or holds no tensors.
    """

    def damaged(why: str) -> T2VError:
        return T2VError(f"{path} is damaged or incomplete: {why}. {AGAIN}")

    file = SourceFile(path)
    try:
        with _ZipFile(path) as stream, zipfile.ZipFile(cast(IO[bytes], stream)) as archive:
            entries = {info.filename: info for info in archive.infolist()}
            names = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
            if not names:
                raise T2VError(f"{path} is a zip archive, no model: unpack it, and give the weights file inside.")
            root = min(names, key=len).removesuffix("data.pkl")
            wanted = (f"{root}data/", f"{root}data.pkl", f"{root}byteorder")
            places = {
                name.removeprefix(root): _entry(file, info, stream, damaged)
                for name, info in entries.items()
                if name.startswith(wanted)
            }
    except T2VError:
        raise
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise damaged(f"its zip archive cannot be read ({quoted(error)})") from error
    except (OSError, ValueError, EOFError, LookupError, struct.error, OverflowError) as error:
        raise damaged(f"its zip archive cannot be read ({type(error).__name__}: {quoted(error)})") from error
    order = places.get("byteorder")
    if order is not None and _bytes(file, order.start, min(order.length, 16)).tobytes().strip() != b"little":
        raise T2VError(f"{path} was saved on a big-endian machine, which is not supported: save it as safetensors.")
    pickle = places["data.pkl"]
    if pickle.length > _WINDOWS[-1]:
        raise damaged("its pickle is too large to be true")
    data = _bytes(file, pickle.start, pickle.length)
    if zlib.crc32(data) != entries[f"{root}data.pkl"].CRC:
        raise damaged("its pickle does not have the checksum that the archive says")
    try:
        value, _ = pickles.load(data, budget, functions=_FUNCTIONS, persistent_load=_storage_of)
    except pickles.DamagedPickle as error:
        raise damaged(str(error)) from error
    numbers = {name.removeprefix("data/"): stored for name, stored in places.items() if name.startswith("data/")}
    return _place(file, budget, value, numbers)


def _bytes(file: SourceFile, start: int, length: int) -> memoryview:
    return file.read(start, length).numpy().data


def _entry(
    file: SourceFile, info: zipfile.ZipInfo, stream: IO[bytes] | io.FileIO, damaged: Callable[[str], T2VError]
) -> Stored:
    """Find the bytes of an uncompressed entry."""
    what = f"its entry {quoted(info.filename)}"
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise damaged(f"{what} is compressed or encrypted, which PyTorch never does")
    stream.seek(info.header_offset)
    header = stream.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise damaged(f"{what} has no header")
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    name, extra = stream.read(name_length), stream.read(extra_length)
    at = 0
    while at + 4 <= len(extra):
        at += 4 + struct.unpack("<H", extra[at + 2 : at + 4])[0]
    if name.decode("utf-8", "replace") != info.orig_filename or at != extra_length:
        raise damaged(f"{what} has a damaged header")
    start = info.header_offset + 30 + name_length + extra_length
    if info.file_size != info.compress_size or start + info.file_size > file.size:
        raise damaged(f"{what} is cut short")
    return Stored(file, start, info.file_size)


def read_legacy(path: Path, budget: Budget) -> LazyDict:
    """Open a file that `torch.save` wrote before PyTorch 1.6: five pickles, then the numbers.

    Raises:
        T2VError: where it is damaged, or holds no tensors.
    """
    file = SourceFile(path)
    storages: dict[str, _Storage] = {}

    def remember(reference: Any) -> _Storage:
        storage = _storage_of(reference)
        return storages.setdefault(storage.key, storage)

    try:
        magic, at = _pickle_at(file, 0, budget)
        if magic != _LEGACY_MAGIC:
            raise pickles.DamagedPickle("it is a pickle, but not one that PyTorch wrote")
        _, at = _pickle_at(file, at, budget)
        system, at = _pickle_at(file, at, budget)
        if isinstance(system, dict) and system.get("little_endian") is False:
            raise T2VError(f"{path} was saved on a big-endian machine, which is not supported: save it as safetensors.")
        value, at = _pickle_at(file, at, budget, functions=_FUNCTIONS, persistent_load=remember)
        keys, at = _pickle_at(file, at, budget)
        places = _stored_numbers(file, keys, storages, at)
    except pickles.DamagedPickle as error:
        raise T2VError(f"{path} is damaged or no model: {error}. {AGAIN}") from error
    return _place(file, budget, value, places)


def _pickle_at(file: SourceFile, at: int, budget: Budget, **options: Any) -> tuple[Any, int]:
    """Interpret the pickle at a position of a file; returns its object and the position after it."""
    for window in _WINDOWS:
        data = _bytes(file, at, min(window, max(file.size - at, 0)))
        try:
            value, length = pickles.load(data, budget, **options)
            return value, at + length
        except pickles.ShortPickle:
            if len(data) < window:  # the file has no more
                raise
    raise pickles.DamagedPickle("its pickle is too large to be true")


def _stored_numbers(file: SourceFile, keys: Any, storages: dict[str, _Storage], at: int) -> dict[str, Stored]:
    """Find the numbers of an older file: for each key of a list, how many there are (8 bytes), and they themselves."""
    places: dict[str, Stored] = {}
    with file.path.open("rb") as stream:
        for key in keys if isinstance(keys, list) else ():
            storage = storages.get(str(key)) if isinstance(key, (str, int)) else None
            if storage is None or storage.key in places or at + 8 > file.size:
                raise pickles.DamagedPickle("its list of storages does not fit its tensors, or the file is truncated")
            stream.seek(at)
            numel = int.from_bytes(stream.read(8), "little", signed=True)
            length = numel * storage.dtype.itemsize
            if numel != storage.numel or at + 8 + length > file.size:
                raise pickles.DamagedPickle("its numbers are cut short")
            places[storage.key] = Stored(file, at + 8, length)
            at += 8 + length
    return places
