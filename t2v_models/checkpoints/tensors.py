"""Tensors that are not read yet: their shapes and types, and how to get them from the mapped file."""

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
"""Types in which a model's weights are computed with, by their names on the command line and in the nodes."""

FLOAT8 = tuple(getattr(torch, name) for name in ("float8_e4m3fn", "float8_e5m2") if hasattr(torch, name))


class FileMap:
    """A file mapped into memory, privately: writing to a tensor that lies in it never reaches the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size
        self._map: mmap.mmap | None = None

    @property
    def buffer(self) -> mmap.mmap:
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
        """Tell the system how a range of bytes will be used, where it can be told."""
        code = getattr(mmap, advice, None)
        if code is not None and length > 0 and hasattr(self.buffer, "madvise"):
            first = start - start % mmap.PAGESIZE
            self.buffer.madvise(code, first, start + length - first)


@dataclass(frozen=True)
class Stored:
    """Where one tensor's storage lies in a file."""

    file: FileMap
    start: int
    """Position of its first byte."""
    length: int
    """Its bytes."""

    def read(self, dtype: torch.dtype, shape: tuple[int, ...], offset: int, stride: tuple[int, ...]) -> torch.Tensor:
        """A tensor as a view of the mapped file; a copy only where the file does not align it to its type."""
        if self.length < dtype.itemsize or 0 in shape:
            return torch.empty(shape, dtype=dtype)
        buffer: Any = self.file.buffer
        start = self.start
        if start % dtype.itemsize:
            buffer, start = bytearray(buffer[start : start + self.length]), 0
        flat = torch.frombuffer(buffer, dtype=dtype, count=self.length // dtype.itemsize, offset=start)
        return flat.as_strided(shape, stride, offset)

    def release(self) -> None:
        """Drop the mapped pages from memory; only where no tensor that was written to lies in them."""
        self.file.advise("MADV_DONTNEED", self.start, self.length)


@dataclass(frozen=True)
class LazyTensor:
    """A tensor's type and shape, and how to get it."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    load: Callable[[], torch.Tensor] = field(repr=False)
    stored: tuple[Stored, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, tensor: torch.Tensor) -> LazyTensor:
        """One that is in memory already."""
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
        """One that lies in a file; `offset` and `stride` count elements."""
        stride = contiguous_stride(shape) if stride is None else stride
        return cls(dtype, shape, partial(stored.read, dtype, shape, offset, stride), (stored,))

    @property
    def numel(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize

    def then(self, change: Callable[[torch.Tensor], torch.Tensor], shape: tuple[int, ...]) -> LazyTensor:
        """This tensor with `change` applied when it is loaded, which gives it `shape`."""
        return LazyTensor(self.dtype, shape, lambda: change(self.load()), self.stored)

    def reshape(self, shape: tuple[int, ...]) -> LazyTensor:
        """The same elements in another shape."""
        return self if shape == self.shape else self.then(lambda tensor: tensor.reshape(shape), shape)

    def to(self, dtype: torch.dtype | None) -> LazyTensor:
        """This tensor converted to `dtype` when it is loaded; integers and `None` leave it as it is."""
        if dtype in (None, self.dtype) or not (self.dtype.is_floating_point or self.dtype in FLOAT8):
            return self
        return LazyTensor(dtype, self.shape, lambda: self.load().to(dtype), self.stored)

    def release(self) -> None:
        """Drop the mapped pages this tensor was read from (see `Stored.release`)."""
        for stored in self.stored:
            stored.release()


LazyDict = dict[str, LazyTensor]
"""Names to tensors that are not read yet."""


def contiguous_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a tensor without gaps."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def as_lazy(state_dict: Mapping[str, torch.Tensor | LazyTensor]) -> LazyDict:
    """A state dict of tensors, in memory or not, as lazy ones."""
    return {
        name: value if isinstance(value, LazyTensor) else LazyTensor.of(value)
        for name, value in state_dict.items()
        if isinstance(value, (torch.Tensor, LazyTensor))
    }


def load_all(tensors: LazyDict) -> dict[str, torch.Tensor]:
    """Every tensor; those of a file are views of its map."""
    return {name: tensor.load() for name, tensor in tensors.items()}


def main_dtype(tensors: LazyDict) -> torch.dtype:
    """The floating point type that most elements have."""
    sizes: dict[torch.dtype, int] = {}
    for tensor in tensors.values():
        if tensor.dtype.is_floating_point:
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.numel
    return max(sizes, key=sizes.__getitem__) if sizes else torch.float32
