"""How much memory the UNet's activations take: where `memory_usage_factor` of the ComfyUI model comes from.

    python benchmarks/memory_factor.py

The full-size UNets run on PyTorch's meta device, which computes shapes and holds no data; every storage that is alive
is counted, and its peak is compared with ComfyUI's formula (batch * frames * height * width of the latent, times the
bytes of a number, times 0.01 MiB, times the factor). Attention counts its output alone, as fused kernels do;
workspaces of the kernels come on top, for which the factor is raised by a fifth.
"""

from __future__ import annotations

import sys
import weakref
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from t2v_models.unet import PRESETS, UNet3D

SIZES = ((16, 32, 32), (16, 40, 64), (24, 40, 72), (24, 72, 128), (64, 32, 32), (1, 64, 64))
"""(frames, height, width) of the latent: ModelScope, VideoCrafter, ZeroScope 576w and XL, a long clip, a still."""

WORKSPACE = 1.2


class Peak(TorchDispatchMode):
    """Counts the bytes of the storages that operations make, as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.alive:
            return
        self.alive[key] = size
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self.alive.pop(key, 0)


def fused(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, options: Any = None) -> torch.Tensor:
    """Attention's shape: (b, n, h*d)."""
    return torch.empty_like(q)


def peak(preset: str, size: tuple[int, int, int], batch: int, dtype: torch.dtype) -> int:
    """Bytes of activations of one forward pass at most."""
    unet = UNet3D(PRESETS[preset], attention=fused, dtype=dtype, device="meta").eval().requires_grad_(False)
    x = torch.empty(batch, unet.config.in_channels, *size, dtype=dtype, device="meta")
    context = torch.empty(batch, 77, unet.config.context_dim, dtype=dtype, device="meta")
    for parameter in unet.parameters():
        parameter.untyped_storage()
    with torch.inference_mode(), Peak() as counted:
        for parameter in unet.parameters():
            counted.alive[parameter.untyped_storage()._cdata] = 0
        unet(x, torch.empty(batch, device="meta"), context)
    return counted.peak


def main() -> None:
    print("preset            latent        batch  activations MiB  factor")
    worst = 0.0
    for preset in ("modelscope", "videocrafter2"):
        for size in SIZES:
            for batch in (1, 2):
                used = peak(preset, size, batch, torch.float16) / 2**20
                factor = used / (batch * size[0] * size[1] * size[2] * 2 * 0.01)
                worst = max(worst, factor)
                print(f"{preset:16}  {'x'.join(map(str, size)):12}  {batch:5}  {used:15.0f}  {factor:6.2f}")
    print(f"largest factor {worst:.2f}, with workspaces {WORKSPACE * worst:.2f}")


if __name__ == "__main__":
    main()
