"""Measure seconds, peak memory, matrix products and file reads."""

from __future__ import annotations

import ctypes
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

PAGE = 4096


@dataclass(frozen=True)
class Run:
    """The cost of one call."""

    seconds: float
    cpu_seconds: float
    """Of all threads of this process; on a busy machine it varies less."""
    peak_bytes: int | None
    """Peak memory beyond what the process held before; None if the system does not report it."""


def measured(function: Callable[[], object]) -> Run:
    """Call a function once and drop its result."""
    held = reset_peak()
    cpu, wall = time.process_time(), time.perf_counter()
    result = function()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = peak_memory()
    del result
    return Run(wall, cpu, None if held is None or peak is None else peak - held)


def reset_peak() -> int | None:
    """Return free memory to the system, reset the peak, and return the bytes now held; None if not on Linux."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return None
    return _status("VmRSS")


def peak_memory() -> int | None:
    """Return the most bytes held since `reset_peak`; None if not on Linux."""
    return _status("VmHWM")


def _status(field: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(field)), None)


@dataclass(frozen=True)
class Rate:
    """FLOP per second of a large linear layer."""

    by_clock: float
    by_cpu: float
    """Per second of CPU time, of all threads together."""


def matmul_rate(dtype: torch.dtype, *, size: int = 1536, seconds: float = 0.7) -> Rate:
    """Return the best rate of as many large linear layers as fit into `seconds`."""
    x, weight = (torch.randn(size, size).to(dtype) for _ in range(2))
    if dtype != torch.float32:  # on some CPUs a type is slow: measure a small layer first
        small = x[:192, :192].contiguous()
        if _fastest(lambda: F.linear(small, small), 0.05)[0] > 0.002:
            x, weight = x[:512, :512].contiguous(), weight[:512, :512].contiguous()
    wall, cpu = _fastest(lambda: F.linear(x, weight), seconds)
    return Rate(2 * len(x) ** 3 / wall, 2 * len(x) ** 3 / cpu)


def _fastest(function: Callable[[], object], seconds: float) -> tuple[float, float]:
    function()
    wall = cpu = float("inf")
    end = time.perf_counter() + seconds
    while wall == float("inf") or time.perf_counter() < end:
        start, start_cpu = time.perf_counter(), time.process_time()
        function()
        wall, cpu = min(wall, time.perf_counter() - start), min(cpu, time.process_time() - start_cpu)
    return wall, cpu


def plain_read(path: Path) -> float:
    """Return the seconds to read a file from start to end into one buffer."""
    buffer = memoryview(bytearray(1 << 24))
    start = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - start


def drop_cache(path: Path) -> bool:
    """Ask the system to drop a file from its cache; returns whether it has such a call."""
    if not hasattr(os, "posix_fadvise"):
        return False
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def touch(tensors: list[torch.Tensor]) -> float:
    """Read one number of every memory page of every tensor, and return their sum."""
    return sum(float(t.detach().view(-1)[:: PAGE // t.element_size()].float().sum()) for t in tensors)


def machine() -> dict[str, object]:
    """Return the processor, threads and torch version of this machine."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "processor": name,
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }
