"""Muon: momentum whose step is made orthogonal, so that a matrix learns in all its directions alike.

Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; the step's size as AdamW's: Liu et
al. 2025, "Muon is scalable for LLM training" (arXiv:2502.16982). torch's own computes in bfloat16, which processors
without such instructions do at a fiftieth of the speed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

SHORTEST = 40
"""Sides of a matrix are at least this long. What is smaller, the first and last layers among it, is left to AdamW."""

ITERATION, ROUNDS = (3.4445, -4.7750, 2.0315), 5
"""Coefficients of the odd polynomial that brings every singular value near 1, and how often it is applied."""


def matrices(model: nn.Module) -> list[nn.Parameter]:
    """The weights that Muon is for; a convolution's counts as (out, in * kernel)."""
    return [p for p in model.parameters() if p.ndim > 1 and min(len(p), p[0].numel()) >= SHORTEST]


class Muon(torch.optim.Optimizer):
    """Trains matrices; learning rate and weight decay as for AdamW."""

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float = 1e-3, weight_decay: float = 1e-2, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One step with Nesterov momentum, matrices of a size together."""
        for group in self.param_groups:
            by_size: dict[tuple[int, int], list[nn.Parameter]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_size.setdefault((len(p), p[0].numel()), []).append(p)
            rate, momentum = group["lr"], group["momentum"]
            for size, params in by_size.items():
                steps = []
                for p in params:
                    if "momentum" not in self.state[p]:
                        self.state[p]["momentum"] = torch.zeros_like(p)
                    mean = self.state[p]["momentum"].lerp_(p.grad, 1 - momentum)
                    steps.append(p.grad.lerp(mean, momentum).reshape(size))
                scale = 0.2 * max(size) ** 0.5
                for p, update in zip(params, orthogonal(torch.stack(steps)), strict=True):
                    p.mul_(1 - rate * group["weight_decay"]).add_(update.reshape(p.shape), alpha=-rate * scale)


def orthogonal(x: torch.Tensor) -> torch.Tensor:
    """(n, rows, columns) -> the nearest matrices with orthonormal rows or columns, roughly: singular values 0.7 to 1.2.

    The rounds multiply x with polynomials of x x^T. They are taken on that square alone, and x is multiplied once, with
    their product: for a convolution's wide matrix a fifth of the work.
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
