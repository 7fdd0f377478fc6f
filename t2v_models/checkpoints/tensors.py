"""Lazy tensors: their types and shapes, and a function that reads them from a mapped file."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch

from ..errors import T2VError

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
"""The types of weights, by their names on the command line and in the nodes."""

FLOAT8 = tuple(getattr(torch, name) for name in ("float8_e4m3fn", "float8_e5m2") if hasattr(torch, name))
"""The 8-bit types of this PyTorch in which weights are stored."""


class FileMap:
    """A file mapped into memory, privately: a change of a tensor in it never reaches the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size
        self._map: mmap.mmap | None = None

    @property
    def buffer(self) -> mmap.mmap:
        """The mapped bytes; T2VError where the file cannot be mapped, or has become shorter."""
        if self._map is None:
            try:
                with self.path.open("rb") as file:
                    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            except (OSError, ValueError) as error:
                raise T2VError(f"{self.path} cannot be mapped into memory: {error}") from error
            if len(mapped) < self.size:
                raise T2VError(f"{self.path} was cut short while it was read: copy or download it again.")
            self._map = mapped
        return self._map

    def advise(self, advice: str, start: int, length: int) -> None:
        """Give the system a hint on the use of a range of bytes, where it takes such hints."""
        code = getattr(mmap, advice, None)
        if code is not None and length > 0 and hasattr(self.buffer, "madvise"):
            first = start - start % mmap.PAGESIZE
            self.buffer.madvise(code, first, start + length - first)


@dataclass(frozen=True)
class Stored:
    """The place of one tensor's storage in a file."""

    file: FileMap
    start: int
    """The position of its first byte."""
    length: int
    """The number of its bytes."""

    def read(self, dtype: torch.dtype, shape: tuple[int, ...], offset: int, stride: tuple[int, ...]) -> torch.Tensor:
        """Read a tensor, a view of the mapped file; a copy where its place is not aligned to its type.

        `offset` and `stride` count elements.
        """
        if self.length < dtype.itemsize or 0 in shape:
            return torch.empty(shape, dtype=dtype)
        buffer: Any = self.file.buffer
        start = self.start
        if start % dtype.itemsize:
            buffer, start = bytearray(buffer[start : start + self.length]), 0
        flat = torch.frombuffer(buffer, dtype=dtype, count=self.length // dtype.itemsize, offset=start)
        return flat.as_strided(shape, stride, offset)

    def release(self) -> None:
        """Drop the mapped pages from memory; no tensor in them may have been changed."""
        self.file.advise("MADV_DONTNEED", self.start, self.length)


@dataclass(frozen=True)
class LazyTensor:
    """A tensor's type and shape, and a function that reads it."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    load: Callable[[], torch.Tensor] = field(repr=False)
    stored: tuple[Stored, ...] = field(default=(), repr=False)
    """The places in files from which it is read; none where it is in memory."""

    @classmethod
    def of(cls, tensor: torch.Tensor) -> LazyTensor:
        """Wrap a tensor that is in memory."""
        return cls(tensor.dtype, tuple(tensor.shape), lambda: tensor)

    @classmethod
    def in_file(
        cls,
        stored: Stored,
        dtype: torch.dtype,
        shape: tuple[int, ...],
        offset: int = 0,
        stride: tuple[int, ...] | None = None,
    ) -> LazyTensor:
        """Describe a tensor in a file; `offset` and `stride` count elements, and None is a tensor without gaps."""
        stride = contiguous_stride(shape) if stride is None else stride
        return cls(dtype, shape, partial(stored.read, dtype, shape, offset, stride), (stored,))

    @property
    def numel(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The number of bytes."""
        return self.numel * self.dtype.itemsize

    def then(self, change: Callable[[torch.Tensor], torch.Tensor], shape: tuple[int, ...]) -> LazyTensor:
        """Return this tensor with `change`, which gives it `shape`, applied when it is loaded."""
        return LazyTensor(self.dtype, shape, lambda: change(self.load()), self.stored)

    def reshape(self, shape: tuple[int, ...]) -> LazyTensor:
        """Return this tensor's elements in another shape."""
        return self if shape == self.shape else self.then(lambda tensor: tensor.reshape(shape), shape)

    def to(self, dtype: torch.dtype | None) -> LazyTensor:
        """Return this tensor, converted to `dtype` when it is loaded; integers stay, and `None` keeps the type."""
        if dtype is None or dtype == self.dtype or not (self.dtype.is_floating_point or self.dtype in FLOAT8):
            return self
        return LazyTensor(dtype, self.shape, lambda: self.load().to(dtype), self.stored)

    def release(self) -> None:
        """Drop the mapped pages from which this tensor was read; it may not have been changed."""
        for stored in self.stored:
            stored.release()


LazyDict = dict[str, LazyTensor]
"""Name -> a tensor that is not read yet."""


def contiguous_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides, in elements, of a tensor without gaps."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def as_lazy(state_dict: Mapping[str, torch.Tensor | LazyTensor]) -> LazyDict:
    """Wrap the tensors of a state dict; lazy ones stay, and anything else is left out."""
    return {
        name: value if isinstance(value, LazyTensor) else LazyTensor.of(value)
        for name, value in state_dict.items()
        if isinstance(value, (torch.Tensor, LazyTensor))
    }


def load_all(tensors: LazyDict) -> dict[str, torch.Tensor]:
    """Read every tensor; those of a file are views of its map."""
    return {name: tensor.load() for name, tensor in tensors.items()}


def main_dtype(tensors: LazyDict) -> torch.dtype:
    """Return the floating point type of most elements; float32 where there is none."""
    sizes: dict[torch.dtype, int] = {}
    for tensor in tensors.values():
        if tensor.dtype.is_floating_point:
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.numel
    return max(sizes, key=sizes.__getitem__) if sizes else torch.float32
