"""Lazy tensors: their types and shapes, and a function that reads them from their file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path

import torch

from ..errors import AGAIN, T2VError

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
"""The types of weights, by their names on the command line and in the nodes."""

FLOAT8 = tuple(getattr(torch, name) for name in ("float8_e4m3fn", "float8_e5m2") if hasattr(torch, name))
"""The 8-bit types of this PyTorch in which weights are stored."""

LONGEST_NAME = 1_000
"""The most characters of a tensor's name."""

MAX_DIMENSIONS, MAX_SIZE = 64, 1 << 48
"""The most dimensions of a tensor, as in torch, and the greatest number that describes one."""


class SourceFile:
    """A weights file whose bytes are read into memory of their own.

    Nothing is mapped: where a mapped file is truncated or written over while its tensors live, the system ends the process.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        state = path.stat()
        self.size, self._changed = state.st_size, state.st_mtime_ns

    def read(self, start: int, length: int) -> torch.Tensor:
        """Read a range of bytes, (length,) uint8.

        Raises:
            T2VError: where the file cannot be read, or has changed since it was opened.
        """
        result = torch.empty(length, dtype=torch.uint8)
        buffer, done = result.numpy().data, 0
        try:
            with self.path.open("rb", buffering=0) as file:
                state = os.fstat(file.fileno())
                file.seek(start)
                while done < length and (count := file.readinto(buffer[done:])):
                    done += count
        except OSError as error:
            raise T2VError(
                f"{self.path} cannot be read ({error}): check the disk and the file's permissions."
            ) from error
        if done < length or (state.st_size, state.st_mtime_ns) != (self.size, self._changed):
            raise T2VError(f"{self.path} was changed or cut short while it was read: load it again. {AGAIN}")
        return result


@dataclass(frozen=True)
class Stored:
    """The place of one tensor's storage in a file."""

    file: SourceFile
    start: int
    """The position of its first byte."""
    length: int
    """The number of its bytes."""

    def read(self, dtype: torch.dtype, shape: tuple[int, ...], offset: int, stride: tuple[int, ...]) -> torch.Tensor:
        """Read a tensor; `offset` and `stride` count elements."""
        if self.length < dtype.itemsize or 0 in shape:
            return torch.empty(shape, dtype=dtype)
        data = self.file.read(self.start + offset * dtype.itemsize, reach(shape, stride) * dtype.itemsize)
        return data.view(dtype).as_strided(shape, stride)


@dataclass(frozen=True)
class LazyTensor:
    """A tensor's type and shape, and a function that reads it."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    load: Callable[[], torch.Tensor] = field(repr=False)

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
        return cls(dtype, shape, partial(stored.read, dtype, shape, offset, stride))

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
        return LazyTensor(self.dtype, shape, lambda: change(self.load()))

    def reshape(self, shape: tuple[int, ...]) -> LazyTensor:
        """Return this tensor's elements in another shape."""
        return self if shape == self.shape else self.then(lambda tensor: tensor.reshape(shape), shape)

    def to(self, dtype: torch.dtype | None) -> LazyTensor:
        """Return this tensor, converted to `dtype` when it is loaded; integers stay, and `None` keeps the type."""
        if dtype is None or dtype == self.dtype or not (self.dtype.is_floating_point or self.dtype in FLOAT8):
            return self
        return LazyTensor(dtype, self.shape, lambda: self.load().to(dtype))


LazyDict = dict[str, LazyTensor]
"""Name -> a tensor that is not read yet."""


def contiguous_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides, in elements, of a tensor without gaps."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def reach(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """Return how many elements lie from the first to the last of a tensor, both counted; 0 where it has none."""
    return 0 if 0 in shape else 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))


def as_lazy(state_dict: Mapping[str, torch.Tensor | LazyTensor]) -> LazyDict:
    """Wrap the tensors of a state dict; lazy ones stay, and anything else is left out."""
    return {
        name: value if isinstance(value, LazyTensor) else LazyTensor.of(value)
        for name, value in state_dict.items()
        if isinstance(value, (torch.Tensor, LazyTensor))
    }


def load_all(tensors: LazyDict) -> dict[str, torch.Tensor]:
    """Read every tensor."""
    return {name: tensor.load() for name, tensor in tensors.items()}


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity; one quick pass, since its extremes say so."""
    if tensor.dtype in FLOAT8:
        tensor = tensor.to(torch.bfloat16)
    return not tensor.dtype.is_floating_point or not tensor.numel() or all(e.isfinite() for e in tensor.aminmax())


def main_dtype(tensors: LazyDict) -> torch.dtype:
    """Return the floating point type of most elements; float32 where there is none."""
    sizes: dict[torch.dtype, int] = {}
    for tensor in tensors.values():
        if tensor.dtype.is_floating_point:
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.numel
    return max(sizes, key=sizes.__getitem__) if sizes else torch.float32
