"""What a recorder keeps of a reference network: its weights' names and shapes, the call, and the output; a few kB."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .seeding import normal, weights

FOLDER = Path(__file__).parent / "recorded"


@dataclass
class Recording:
    """One call of a reference network whose weights and inputs are those of `seeding`."""

    source: str
    """The class and the revision it was recorded from."""
    arguments: dict
    """What the class was made with."""
    shapes: dict[str, list[int]]
    """Name -> shape of every weight of the checkpoint that a user would have."""
    inputs: dict[str, list[int]]
    """Name -> shape of every seeded input."""
    values: dict[str, list[float]]
    """Name -> numbers of every other input: timesteps, fps, guidance scales."""
    lora: list[list[int]] = field(default_factory=list)
    """Shapes of an ordered LoRA's tensors, in the order of the file."""
    output: Tensor = field(default_factory=lambda: torch.empty(0))

    def state_dict(self) -> dict[str, Tensor]:
        return weights({name: tuple(shape) for name, shape in self.shapes.items()})

    def lora_tensors(self) -> list[Tensor]:
        return [lora_weight(index, tuple(shape)) for index, shape in enumerate(self.lora)]

    def seeded(self, name: str) -> Tensor | None:
        """An input made from its name, or None where the call had none of that name."""
        return normal(name, tuple(self.inputs[name])) if name in self.inputs else None

    def given(self, name: str) -> Tensor | None:
        """An input of plain numbers, or None."""
        return torch.tensor(self.values[name]) if name in self.values else None

    def save(self, name: str) -> Path:
        FOLDER.mkdir(exist_ok=True)
        head = asdict(self)
        output = head.pop("output").numpy()
        text = zlib.compress(json.dumps(head, separators=(",", ":")).encode(), 9)
        path = FOLDER / f"{name}.npz"
        np.savez(path, head=np.frombuffer(text, dtype=np.uint8), output=output)
        return path

    @classmethod
    def load(cls, name: str) -> Recording:
        with np.load(FOLDER / f"{name}.npz") as file:
            head = json.loads(zlib.decompress(file["head"].tobytes()))
            return cls(**head, output=torch.from_numpy(file["output"]))


def lora_weight(index: int, shape: tuple[int, ...]) -> Tensor:
    """The tensor at a place of an ordered LoRA: up (o, r, …) at even places, down (r, i, …) at odd ones."""
    return normal(f"lora.{index}", shape) * 0.7 * int(np.prod(shape[1:])) ** -0.5
