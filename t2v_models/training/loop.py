"""A training loop with warm-up, cosine decay, clipping and averaged weights, which resumes at its last saved step."""

from __future__ import annotations

import csv
import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file
from torch import nn

from ..atomic_files import write_tensors
from ..errors import T2VError
from .muon import Muon, matrices

log = logging.getLogger(__name__)

Module = TypeVar("Module", bound=nn.Module)

Optimizers = dict[str, torch.optim.Optimizer]
"""By the name under which a state file stores them."""

Tensors = dict[str, torch.Tensor]

Row = tuple[int, float, float]
"""A line of loss.csv: step, loss, norm of the gradient."""


@dataclass(frozen=True)
class Schedule:
    """The length of a training, its learning rate, and the averaging of its weights."""

    steps: int
    learning_rate: float = 2e-3
    warmup: int = 100
    """Steps in which the learning rate rises from 0."""
    weight_decay: float = 1e-2
    hold: float = 0.0
    """Share of the steps at the full rate, before it falls."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    average: float = 0.998
    """Decay of the exponential average of the weights, which is the result; lower in the first steps."""
    muon: bool = False
    """Whether Muon trains the matrices instead of AdamW."""

    def over(self, steps: int) -> Schedule:
        """Return a copy for another number of steps."""
        return replace(self, steps=steps, warmup=min(self.warmup, steps // 2))

    def rate(self, step: int) -> float:
        """Return the learning rate of a step: linear warm-up, the full rate for a while, then a cosine to a hundredth."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        falls = max(self.warmup, self.hold * self.steps)
        done = max(0.0, step - falls) / max(self.steps - falls, 1)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1))))


def step_seed(seed: int, step: int) -> int:
    """Return the seed of one step: a resumed training draws the numbers of an uninterrupted one."""
    return (seed * 1_000_003 + step) % 2**63


def fit(
    model: Module,
    loss: Callable[[int, torch.Generator], torch.Tensor],
    schedule: Schedule,
    folder: Path,
    *,
    seed: int = 0,
    save_every: float = 300,
    title: str = "training",
    progress: bool = True,
) -> Module:
    """Train `model` in place on `loss(step, random)`, load the average of its weights into it, and return it.

    Args:
        folder: where the state (weights, optimisers, step), the average alone (`average.safetensors`) and `loss.csv` are
            written; a folder with a state is resumed.
        save_every: seconds between two saved states.
        title: of the progress bar.

    Raises:
        T2VError: if the folder's state is of other optimisers.
    """
    from tqdm import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    optimizers = _optimizers(model, schedule)
    weights = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
    average = {name: value.detach().clone() for name, value in weights.items()}
    first, last = _resume(folder, model, optimizers, average), schedule.steps - 1
    saved, unsaved = time.monotonic(), list[Row]()
    steps = range(first, schedule.steps)
    bar = tqdm(steps, title, schedule.steps, initial=first, disable=not progress, mininterval=5)
    for step in bar:
        torch.manual_seed(step_seed(seed, step))
        value = loss(step, torch.Generator().manual_seed(step_seed(seed, step)))
        norm = _train_step(model, value, optimizers, schedule, step)
        _update_average(average, weights, min(schedule.average, (step + 1) / (step + 10)))
        unsaved.append((step, value.item(), norm))
        recent = [row[1] for row in unsaved[-50:]]
        bar.set_postfix(loss=f"{sum(recent) / len(recent):.4f}", refresh=False)
        if time.monotonic() - saved > save_every or step == last:
            _save(folder, model, optimizers, average, step + 1, unsaved)
            saved, unsaved = time.monotonic(), []
    for name, value in weights.items():
        value.copy_(average[name])
    return model


def _optimizers(model: nn.Module, schedule: Schedule) -> Optimizers:
    """AdamW, and Muon for the matrices if the schedule wants it."""
    large = matrices(model) if schedule.muon else []
    rest = [p for p in model.parameters() if all(p is not matrix for matrix in large)]
    # fused: one pass over the weights instead of a dozen small ones each
    adamw = torch.optim.AdamW(rest, schedule.learning_rate, (0.9, 0.99), weight_decay=schedule.weight_decay, fused=True)
    return {"optimizer": adamw, **({"muon": Muon(large, weight_decay=schedule.weight_decay)} if large else {})}


def _train_step(model: nn.Module, loss: torch.Tensor, optimizers: Optimizers, schedule: Schedule, step: int) -> float:
    """Change the weights by the gradient of a loss; returns the gradient's norm."""
    model.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
    if not torch.isfinite(norm):
        log.warning("Step %d skipped: the gradient is not finite.", step)
        return float(norm)
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        optimizer.step()
    return float(norm)


@torch.no_grad()
def _update_average(average: Tensors, weights: Tensors, decay: float) -> None:
    from torch.optim.swa_utils import get_ema_multi_avg_fn

    get_ema_multi_avg_fn(decay)(list(average.values()), list(weights.values()), 0)  # it ignores the number of steps


def _save(folder: Path, model: nn.Module, optimizers: Optimizers, average: Tensors, step: int, rows: list[Row]) -> None:
    # losses first: after an interruption, steps may be written twice, but none is lost
    with open(folder / "loss.csv", "a", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    state |= {f"average.{name}": value for name, value in average.items()}
    for prefix, optimizer in optimizers.items():
        for index, entry in optimizer.state_dict()["state"].items():
            state |= {f"{prefix}.{index}.{name}": torch.as_tensor(value) for name, value in entry.items()}
    write_tensors(folder / "state.safetensors", state, {"step": str(step)})
    write_tensors(folder / "average.safetensors", average, {"step": str(step)})


def _resume(folder: Path, model: nn.Module, optimizers: Optimizers, average: Tensors) -> int:
    """Load the state of a folder; returns the step to go on with, 0 if there is no state."""
    path = folder / "state.safetensors"
    if not path.exists():
        (folder / "loss.csv").unlink(missing_ok=True)
        return 0
    state = load_file(path)
    model.load_state_dict({k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")})
    for name, value in average.items():
        value.copy_(state[f"average.{name}"])
    for prefix, optimizer in optimizers.items():
        entries: dict[int, Tensors] = {}
        for key, value in state.items():
            if key.startswith(f"{prefix}."):
                _, index, name = key.split(".", 2)
                entries.setdefault(int(index), {})[name] = value.clone()  # no view of the file: it will be replaced
        if not _fits(entries, optimizer):
            raise T2VError(
                f"{path} was not written by the {prefix} of this training: give another folder, or remove this one to "
                "begin anew."
            )
        optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    _drop_partial_line(folder / "loss.csv")
    step = int(header["__metadata__"]["step"])
    log.info("Going on at step %d of %s.", step, folder)
    return step


def _fits(entries: dict[int, Tensors], optimizer: torch.optim.Optimizer) -> bool:
    """Whether a state belongs to the optimiser's parameters: torch would load any other without an error."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    return bool(entries) and all(
        index < len(params) and (not value.ndim or value.shape == params[index].shape)
        for index, entry in entries.items()
        for value in entry.values()
    )


def _drop_partial_line(path: Path) -> None:
    """Remove a last line without an end, or the next line would be joined to it."""
    if path.exists():
        content = path.read_bytes()
        path.write_bytes(content[: content.rfind(b"\n") + 1])
