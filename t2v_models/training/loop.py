"""One training loop for all stages: warm-up and cosine decay, clipping, averaged weights, resumable by step."""

from __future__ import annotations

import csv
import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from ..atomic_files import write_tensors
from ..errors import T2VError
from .muon import Muon, matrices

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train."""

    steps: int
    learning_rate: float = 2e-3
    warmup: int = 100
    weight_decay: float = 1e-2
    hold: float = 0.0
    """Share of the steps at the full rate, before it falls."""
    clip: float = 1.0
    average: float = 0.998
    """Decay of the exponential average of the weights, which is what is kept; shorter in the first steps."""
    muon: bool = False
    """Whether matrices are trained by Muon instead of AdamW."""

    def over(self, steps: int) -> Schedule:
        """The same in another number of steps."""
        return replace(self, steps=steps, warmup=min(self.warmup, steps // 2))

    def rate(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, the full rate for a while, then a cosine to a hundredth."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        falls = max(self.warmup, self.hold * self.steps)
        done = max(0.0, step - falls) / max(self.steps - falls, 1)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1))))


def step_seed(seed: int, step: int) -> int:
    """The seed of one step: a resumed run draws what an uninterrupted one would have drawn."""
    return (seed * 1_000_003 + step) % 2**63


def fit(
    model: nn.Module,
    loss: Callable[[int, torch.Generator], torch.Tensor],
    schedule: Schedule,
    folder: Path,
    *,
    seed: int = 0,
    save_every: float = 300,
    title: str = "training",
    progress: bool = True,
) -> nn.Module:
    """Train `model` in place on `loss(step, random)` and load the average of its weights into it.

    `folder` keeps the state (weights, optimiser, step), the average alone (`average.safetensors`, for a look while it
    trains) and `loss.csv`. A folder with a state is resumed.
    """
    from torch.optim.swa_utils import get_ema_multi_avg_fn
    from tqdm import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    wide = matrices(model) if schedule.muon else []
    rest = [p for p in model.parameters() if all(p is not matrix for matrix in wide)]
    # fused: one pass over the weights instead of a dozen small ones each
    adamw = torch.optim.AdamW(rest, schedule.learning_rate, (0.9, 0.99), weight_decay=schedule.weight_decay, fused=True)
    optimizers = {"optimizer": adamw, **({"muon": Muon(wide, weight_decay=schedule.weight_decay)} if wide else {})}
    current = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
    average = {name: value.detach().clone() for name, value in current.items()}
    first = _resume(folder, model, optimizers, average)
    saved = time.monotonic()
    bar = tqdm(
        range(first, schedule.steps),
        initial=first,
        total=schedule.steps,
        desc=title,
        disable=not progress,
        mininterval=5,
    )
    recent: list[tuple[int, float, float]] = []
    for step in bar:
        torch.manual_seed(step_seed(seed, step))
        random = torch.Generator().manual_seed(step_seed(seed, step))
        value = loss(step, random)
        model.zero_grad()
        value.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
        for group in (group for each in optimizers.values() for group in each.param_groups):
            group["lr"] = schedule.rate(step)
        if torch.isfinite(norm):
            for optimizer in optimizers.values():
                optimizer.step()
        else:
            log.warning("Step %d skipped: the gradient is not finite.", step)
        with torch.no_grad():
            keep = min(schedule.average, (step + 1) / (step + 10))
            get_ema_multi_avg_fn(keep)(list(average.values()), list(current.values()), step)
        recent.append((step, value.item(), float(norm)))
        bar.set_postfix(loss=f"{sum(v for _, v, _ in recent[-50:]) / len(recent[-50:]):.4f}", refresh=False)
        if time.monotonic() - saved > save_every or step == schedule.steps - 1:
            _save(folder, model, optimizers, average, step + 1, recent)
            recent, saved = [], time.monotonic()
    for name, value in current.items():
        value.copy_(average[name])
    return model


Optimizers = dict[str, torch.optim.Optimizer]
"""By the name under which a state file keeps their state."""


def _save(folder: Path, model: nn.Module, optimizers: Optimizers, average: dict, step: int, recent: list) -> None:
    with open(
        folder / "loss.csv", "a", newline="", encoding="utf-8"
    ) as file:  # first: steps may be done twice, not lost
        csv.writer(file).writerows(recent)
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    state |= {f"average.{name}": value for name, value in average.items()}
    for kind, optimizer in optimizers.items():
        for index, entry in optimizer.state_dict()["state"].items():
            state |= {f"{kind}.{index}.{name}": torch.as_tensor(value) for name, value in entry.items()}
    write_tensors(folder / "state.safetensors", state, {"step": str(step)})
    write_tensors(folder / "average.safetensors", average, {"step": str(step)})


def _fits(entries: dict[int, dict[str, torch.Tensor]], optimizer: torch.optim.Optimizer) -> bool:
    """Whether that state is of those parameters. torch takes any for any, and then steps anywhere."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    return bool(entries) and all(
        index < len(params) and (not value.ndim or value.shape == params[index].shape)
        for index, entry in entries.items()
        for value in entry.values()
    )


def _mend(path: Path) -> None:
    """Drop a last line that was cut off in writing: the next would be joined to it."""
    if path.exists():
        whole = path.read_bytes()
        path.write_bytes(whole[: whole.rfind(b"\n") + 1])


def _resume(folder: Path, model: nn.Module, optimizers: Optimizers, average: dict) -> int:
    path = folder / "state.safetensors"
    if not path.exists():
        (folder / "loss.csv").unlink(missing_ok=True)
        return 0
    state = load_file(path)
    model.load_state_dict({k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")})
    for name, value in average.items():
        value.copy_(state[f"average.{name}"])
    for kind, optimizer in optimizers.items():
        entries: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in state.items():
            if key.startswith(f"{kind}."):
                _, index, name = key.split(".", 2)
                entries.setdefault(int(index), {})[name] = value.clone()  # not a view of the file: it will be replaced
        if not _fits(entries, optimizer):
            raise T2VError(
                f"{path} was not written by the {kind} of this training: give another folder, or remove this one to "
                "begin anew."
            )
        optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    _mend(folder / "loss.csv")
    step = int(header["__metadata__"]["step"])
    log.info("Going on at step %d of %s.", step, folder)
    return step
