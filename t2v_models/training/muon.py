"""Muon: an optimiser for matrices that makes each step orthogonal, so that all directions learn at one speed.

Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks". Steps have the size of AdamW's:
Liu et al. 2025, "Muon is scalable for LLM training" (arXiv:2502.16982). torch's own Muon computes in bfloat16, at a
fiftieth of the speed on CPUs without instructions for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import nn

SHORTEST = 40
"""Shortest side of a matrix that Muon trains. AdamW trains smaller ones, such as first and last layers."""

ITERATION, ROUNDS = (3.4445, -4.7750, 2.0315), 5
"""Coefficients of the odd polynomial that brings every singular value near 1, and how often it is applied."""


def matrices(model: nn.Module) -> list[nn.Parameter]:
    """Return the weights for Muon to train; a convolution's is a matrix (out, in * kernel)."""
    return [p for p in model.parameters() if p.ndim > 1 and min(len(p), p[0].numel()) >= SHORTEST]


class Muon(torch.optim.Optimizer):
    """Train matrices, with AdamW's learning rate and weight decay."""

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float = 1e-3, weight_decay: float = 1e-2, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Do one step with Nesterov momentum, on all matrices of one size at a time."""
        loss = None if closure is None else closure()
        with torch.no_grad():
            for group in self.param_groups:
                for size, params in _by_size(group["params"]).items():
                    self._update(params, size, group)
        return loss

    def _update(
        self, params: list[tuple[nn.Parameter, torch.Tensor]], size: tuple[int, int], group: dict[str, Any]
    ) -> None:
        rate, momentum = group["lr"], group["momentum"]
        steps = []
        for p, gradient in params:
            if "momentum" not in self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
            mean = self.state[p]["momentum"].lerp_(gradient, 1 - momentum)
            steps.append(gradient.lerp(mean, momentum).reshape(size))
        scale = 0.2 * max(size) ** 0.5
        for (p, _), update in zip(params, orthogonal(torch.stack(steps)), strict=True):
            p.mul_(1 - rate * group["weight_decay"]).add_(update.reshape(p.shape), alpha=-rate * scale)


def _by_size(params: Iterable[nn.Parameter]) -> dict[tuple[int, int], list[tuple[nn.Parameter, torch.Tensor]]]:
    """Parameters and their gradients by (rows, columns)."""
    out: dict[tuple[int, int], list[tuple[nn.Parameter, torch.Tensor]]] = {}
    for p in params:
        if p.grad is not None:
            out.setdefault((len(p), p[0].numel()), []).append((p, p.grad))
    return out


def orthogonal(x: torch.Tensor) -> torch.Tensor:
    """x: (n, rows, columns) -> about the nearest matrices with orthonormal rows or columns: singular values 0.7 to 1.2.

    Every round multiplies x by a polynomial of x x^T. The polynomials are computed from that square alone, and x is
    multiplied once by their product: for a convolution's wide matrix, this is a fifth of the work.
    """
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = ITERATION
    one = torch.eye(x.shape[1], device=x.device)
    square, product = x @ x.mT, one
    for _ in range(ROUNDS):
        factor = a * one + b * square + c * square @ square
        product = factor @ product
        square = factor @ square @ factor
    x = product @ x
    return x.mT if tall else x
