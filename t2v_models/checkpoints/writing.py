"""Write weights with one tensor in memory at a time: safetensors, and PyTorch's zip archive."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

import torch

from ..errors import T2VError
from ..texts import strict_json
from .files import DTYPE_NAMES
from .tensors import LazyDict, LazyTensor, contiguous_stride

Progress = Callable[[int], None]
"""Called with the bytes written since the last call."""

_STORAGES = {
    torch.float64: torch.DoubleStorage,
    torch.float32: torch.FloatStorage,
    torch.float16: torch.HalfStorage,
    torch.bfloat16: torch.BFloat16Storage,
    torch.int64: torch.LongStorage,
    torch.int32: torch.IntStorage,
    torch.uint8: torch.ByteStorage,
    torch.bool: torch.BoolStorage,
}
_ALIGNMENT = 64
"""Bytes; tensors begin at multiples of it."""


def write_safetensors(path: Path, tensors: LazyDict, metadata: dict[str, str], progress: Progress) -> None:
    """Write a safetensors file, with the widest types first, so that all tensors are aligned.

    Raises:
        T2VError: where a tensor that is loaded has another type or shape than it promised.
    """
    tensors = dict(sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize))
    header: dict[str, Any] = {"__metadata__": metadata}
    at = 0
    for name, tensor in tensors.items():
        entry = {"dtype": DTYPE_NAMES[tensor.dtype], "shape": list(tensor.shape)}
        header[name] = entry | {"data_offsets": [at, at + tensor.nbytes]}
        at += tensor.nbytes
    encoded = strict_json(header, separators=(",", ":")).encode()
    encoded += b" " * (-(8 + len(encoded)) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for name, tensor in tensors.items():
            _write_bytes(file, name, tensor)
            progress(tensor.nbytes)


def write_pickle(path: Path, tensors: LazyDict, progress: Progress, wrapper: str = "") -> None:
    """Write the file that `torch.save` would write of the state dict, or of a dictionary with it under `wrapper`.

    Raises:
        T2VError: where a tensor has a type that PyTorch's format cannot hold, or another type or shape than it promised.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        archive.writestr("archive/data.pkl", _pickled(tensors, wrapper))
        archive.writestr("archive/byteorder", "little")
        for index, (name, tensor) in enumerate(tensors.items()):
            info = zipfile.ZipInfo(f"archive/data/{index}")
            header = 30 + len(info.filename) + 20 + 4  # zip64 takes 20 bytes, the padding's own header 4
            padding = -(cast(IO[bytes], archive.fp).tell() + header) % _ALIGNMENT
            info.extra = struct.pack("<HH", 0x4246, padding) + b"Z" * padding
            with archive.open(info, "w", force_zip64=True) as file:
                _write_bytes(file, name, tensor)
            progress(tensor.nbytes)
        archive.writestr("archive/version", "3\n")


def _write_bytes(file: IO[bytes], name: str, tensor: LazyTensor) -> None:
    value = tensor.load()
    if value.dtype != tensor.dtype or tuple(value.shape) != tensor.shape:
        raise T2VError(
            f"{name} is {value.dtype} {tuple(value.shape)} where {tensor.dtype} {tensor.shape} was promised."
        )
    value = value.detach().cpu().contiguous()
    if value.numel():
        file.write(value.view(-1).view(torch.uint8).numpy().data)


def _pickled(tensors: LazyDict, wrapper: str) -> bytes:
    """Pickle a state dict without its numbers: the opcodes of protocol 2 that `torch.load` with weights_only reads."""
    unknown = next((name for name, tensor in tensors.items() if tensor.dtype not in _STORAGES), None)
    if unknown is not None:
        raise T2VError(f"{unknown} is {tensors[unknown].dtype}, which PyTorch's format does not hold: choose a dtype.")
    state_dict = _dict({name: _tensor(index, tensor) for index, (name, tensor) in enumerate(tensors.items())})
    return b"\x80\x02" + (_dict({wrapper: state_dict}) if wrapper else state_dict) + b"."


def _tensor(index: int, tensor: LazyTensor) -> bytes:
    """A call of torch's function that builds a tensor of a storage, which has the numbers beside the pickle."""
    kind = _name("torch", _STORAGES[tensor.dtype].__name__)
    storage = _tuple(_text("storage"), kind, _text(str(index)), _text("cpu"), _integer(tensor.numel)) + b"Q"
    offset, needs_grad, hooks = _integer(0), b"\x89", _dict({})
    shape, stride = (_tuple(*map(_integer, each)) for each in (tensor.shape, contiguous_stride(tensor.shape)))
    arguments = _tuple(storage, offset, shape, stride, needs_grad, hooks)
    return _name("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


def _name(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _integer(value: int) -> bytes:
    if value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x08" + struct.pack("<q", value)


def _tuple(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def _dict(items: dict[str, bytes]) -> bytes:
    return b"}(" + b"".join(_text(key) + value for key, value in items.items()) + b"u"
