"""What a reference network makes of seeded inputs, in several calls; a few kB."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .seeding import weights

FOLDER = Path(__file__).parent / "recorded" / "networks"


@dataclass
class Outputs:
    """The calls of one network, whose weights are those of `seeding`."""

    source: str
    """The class and the revision it was recorded from."""
    shapes: dict[str, list[int]]
    """Name -> shape of every weight, in the order of its modules."""
    calls: dict[str, Tensor]
    """The name of a call -> its output, or a part of it."""

    def state_dict(self) -> dict[str, Tensor]:
        return weights({name: tuple(shape) for name, shape in self.shapes.items()})

    def save(self, name: str) -> Path:
        FOLDER.mkdir(parents=True, exist_ok=True)
        path = FOLDER / f"{name}.npz"
        head = json.dumps({"source": self.source, "shapes": self.shapes})
        np.savez_compressed(path, head=np.array(head), **{key: value.numpy() for key, value in self.calls.items()})
        return path

    @classmethod
    def load(cls, name: str) -> Outputs:
        with np.load(FOLDER / f"{name}.npz") as file:
            calls = {key: torch.from_numpy(file[key]) for key in file.files if key != "head"}
            return cls(**json.loads(str(file["head"])), calls=calls)
