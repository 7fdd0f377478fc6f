"""Open PyTorch's own files, the zip archive and the older stream of pickles, without running code in them."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import IO, Any, cast

import torch

from ..errors import AGAIN, T2VError
from . import pickles
from .tensors import FileMap, LazyDict, LazyTensor, Stored, contiguous_stride

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

_MAX_PICKLE = 1 << 30
"""The most bytes of a pickle in a zip archive."""

_MAX_DEPTH = 6
"""How deep dictionaries are searched for tensors."""


class _Storage:
    """A storage that a pickle names; in older files its place follows later."""

    def __init__(self, key: str, dtype: torch.dtype, numel: int) -> None:
        self.key, self.dtype, self.numel = key, dtype, numel


class _Tensor:
    """A tensor as a pickle describes it."""

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
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or not all(type(n) is int and n >= 0 for n in numbers):
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
    known = _FUNCTIONS.get(function.name) if isinstance(function, pickles.Global) else None
    return known(*args) if known and isinstance(args, tuple) else pickles.Opaque("tensor")


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": lambda items=(): {k: v for k, v in items if isinstance(k, str)},
    "torch.Size": lambda sizes=(): tuple(sizes),
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": lambda data, *rest: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *rest: data,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
}


def _storage_of(reference: Any) -> _Storage:
    """Parse the persistent id of a storage: ("storage", class, key, place, elements)."""
    kind, storage_class, key, _place, numel, *_view = reference
    name = storage_class.name.rsplit(".", 1)[-1] if isinstance(storage_class, pickles.Global) else ""
    if kind != "storage" or type(numel) is not int or numel < 0:
        raise pickles.DamagedPickle("its pickle names an impossible storage")
    if name not in _STORAGES:
        raise pickles.DamagedPickle(f"it holds numbers of a kind that no supported model uses ({name or 'unknown'})")
    return _Storage(str(key), _STORAGES[name], numel)


def _place(path: Path, value: Any, places: dict[str, Stored]) -> LazyDict:
    """Collect the tensors in a loaded object, by dotted names."""
    tensors: LazyDict = {}

    def visit(value: Any, name: str, depth: int) -> None:
        if isinstance(value, _Tensor):
            tensors[name] = _to_lazy(path, name, value, places)
        elif name == "step" and type(value) is int and abs(value) < 1 << 62:
            tensors[name] = LazyTensor.of(torch.tensor(value))  # distinguishes VGen's models
        elif depth < _MAX_DEPTH and isinstance(value, dict):
            for key, item in value.items():
                if isinstance(key, str) and not key.startswith("optimizer"):
                    visit(item, f"{name}.{key}" if name else key, depth + 1)
        elif depth < _MAX_DEPTH and isinstance(value, (list, tuple)) and value and isinstance(value[0], _Tensor):
            for index, item in enumerate(value):
                visit(item, f"{name}.{index}" if name else str(index), _MAX_DEPTH)

    visit(value, "", 0)
    if set(tensors) <= {"step"}:
        raise T2VError(f"{path} holds no tensors (its pickle holds something else): give a model's weights.")
    return tensors


def _to_lazy(path: Path, name: str, tensor: _Tensor, places: dict[str, Stored]) -> LazyTensor:
    """Find a tensor's numbers in the file; T2VError where they are missing, cut short or overlap."""
    stored = places.get(tensor.storage.key)
    if stored is None:
        raise T2VError(f"{path} is damaged: the numbers of {name!r} are missing. {AGAIN}")
    size = tensor.dtype.itemsize
    last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride, strict=True))
    if prod(tensor.shape) and (last + 1) * size > stored.length:
        raise T2VError(f"{path} is damaged: {name!r} of shape {list(tensor.shape)} is cut short. {AGAIN}")
    if prod(tensor.shape) * size > max(stored.length, 1):
        raise T2VError(f"{path} is damaged: {name!r} has shape {list(tensor.shape)}, more than is stored. {AGAIN}")
    if _overlaps(tensor.shape, tensor.stride):
        raise T2VError(f"{path} is damaged: the numbers of {name!r} overlap. {AGAIN}")
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


def read_zip(path: Path) -> LazyDict:
    """Open a file that `torch.save` wrote since PyTorch 1.6: a zip archive of a pickle and the numbers.

    Raises:
        T2VError: where it is damaged, or holds no tensors.
    """

    def damaged(why: str) -> T2VError:
        return T2VError(f"{path} is damaged or incomplete: {why}. {AGAIN}")

    file = FileMap(path)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {info.filename: info for info in archive.infolist()}
            names = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
            if not names:
                raise T2VError(f"{path} is a zip archive, no model: unpack it, and give the weights file inside.")
            root = min(names, key=len).removesuffix("data.pkl")
            if entries[root + "data.pkl"].file_size > _MAX_PICKLE:
                raise damaged("its pickle is too large to be true")
            data = archive.read(root + "data.pkl")
            order = archive.read(root + "byteorder") if root + "byteorder" in entries else b"little"
            places = {
                name.removeprefix(root + "data/"): _entry(file, info, archive, damaged)
                for name, info in entries.items()
                if name.startswith(root + "data/")
            }
    except T2VError:
        raise
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise damaged(f"its zip archive cannot be read ({error})") from error
    except (OSError, ValueError, EOFError, KeyError, IndexError, struct.error, OverflowError) as error:
        raise damaged(f"its zip archive cannot be read ({type(error).__name__}: {error})") from error
    if order.strip() != b"little":
        raise T2VError(f"{path} was saved on a big-endian machine, which is not supported: save it as safetensors.")
    try:
        value, _ = pickles.load(data, functions=_FUNCTIONS, persistent_load=_storage_of)
    except pickles.DamagedPickle as error:
        raise damaged(str(error)) from error
    return _place(path, value, places)


def _entry(
    file: FileMap, info: zipfile.ZipInfo, archive: zipfile.ZipFile, damaged: Callable[[str], T2VError]
) -> Stored:
    """Find the bytes of an uncompressed entry."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise damaged(f"its entry {info.filename} is compressed or encrypted, which PyTorch never does")
    stream = cast(IO[bytes], archive.fp)  # open as long as the archive is
    stream.seek(info.header_offset)
    header = stream.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise damaged(f"its entry {info.filename} has no header")
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    name, extra = stream.read(name_length), stream.read(extra_length)
    at = 0
    while at + 4 <= len(extra):
        at += 4 + struct.unpack("<H", extra[at + 2 : at + 4])[0]
    if name.decode("utf-8", "replace") != info.orig_filename or at != extra_length:
        raise damaged(f"its entry {info.filename} has a damaged header")
    start = info.header_offset + 30 + name_length + extra_length
    if info.file_size != info.compress_size or start + info.file_size > file.size:
        raise damaged(f"its entry {info.filename} is cut short")
    return Stored(file, start, info.file_size)


def read_legacy(path: Path) -> LazyDict:
    """Open a file that `torch.save` wrote before PyTorch 1.6: five pickles, then the numbers.

    Raises:
        T2VError: where it is damaged, or holds no tensors.
    """

    def damaged(why: str) -> T2VError:
        return T2VError(f"{path} is damaged or no model: {why}. {AGAIN}")

    file = FileMap(path)
    storages: dict[str, _Storage] = {}

    def remember(reference: Any) -> _Storage:
        storage = _storage_of(reference)
        view = reference[5] if len(reference) > 5 else None
        if view is not None:
            raise pickles.DamagedPickle("it was saved by a PyTorch older than 0.4: load and save it again with PyTorch")
        return storages.setdefault(storage.key, storage)

    data = memoryview(file.buffer)
    try:
        magic, at = pickles.load(data)
        if magic != _LEGACY_MAGIC:
            raise damaged("it is a pickle, but not one that PyTorch wrote")
        _, at = pickles.load(data, at)
        system, at = pickles.load(data, at)
        if isinstance(system, dict) and system.get("little_endian") is False:
            raise T2VError(f"{path} was saved on a big-endian machine, which is not supported: save it as safetensors.")
        value, at = pickles.load(data, at, functions=_FUNCTIONS, persistent_load=remember)
        keys, at = pickles.load(data, at)
    except pickles.DamagedPickle as error:
        raise damaged(str(error)) from error
    try:
        return _place(path, value, _stored_numbers(file, keys, storages, at))
    except pickles.DamagedPickle as error:
        raise damaged(str(error)) from error


def _stored_numbers(file: FileMap, keys: Any, storages: dict[str, _Storage], at: int) -> dict[str, Stored]:
    """Find the numbers of an older file: for each key of a list, how many there are (8 bytes), and they themselves."""
    places: dict[str, Stored] = {}
    for key in keys if isinstance(keys, list) else ():
        storage = storages.get(str(key))
        if storage is None or at + 8 > file.size:
            raise pickles.DamagedPickle("its list of storages does not fit its tensors, or the file is truncated")
        numel = int.from_bytes(file.buffer[at : at + 8], "little", signed=True)
        length = numel * storage.dtype.itemsize
        if numel != storage.numel or at + 8 + length > file.size:
            raise pickles.DamagedPickle("its numbers are cut short")
        places[storage.key] = Stored(file, at + 8, length)
        at += 8 + length
    return places
