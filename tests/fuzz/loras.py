"""Mutate LoRA files: each gives one clear error, or is added to a network; no code in it is executed.

    python -m tests.fuzz.loras [--count 10000] [--seed 0] [--keep FOLDER]

Besides the mutations of tests/fuzz/checkpoints.py that change bytes: names, shapes, ranks, alphas and types of single
tensors, numbers that are not finite, lists without names and things in them that are no tensors.
"""

from __future__ import annotations

import functools
import io
import random
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from t2v_models.checkpoints import apply_loras
from t2v_models.checkpoints.lora_lists import videocrafter_order

from ..support.checkpoints import in_layout, random_tensors, unet_weights
from . import checkpoints
from .checkpoints import TINY
from .run import command

RANK = 2


@functools.cache
def weights() -> dict[str, torch.Tensor]:
    return unet_weights(TINY)


def checked(path: Path) -> str:
    """Add the LoRA to a network; returns "loaded". T2VError where it is refused."""
    state_dict = {name: tensor.clone() for name, tensor in weights().items()}
    shapes = {name: tensor.shape for name, tensor in state_dict.items()}
    (report,) = apply_loras(state_dict, [(path, 0.7)])
    same = {name: tensor.shape for name, tensor in state_dict.items() if name in shapes} == shapes
    return "loaded" if report.applied and same else f"nothing was changed: {report!r:.200}"


def named() -> dict[str, torch.Tensor]:
    """The pairs of a few attention layers: "NAME.up" and "NAME.down" -> tensor."""
    tensors = in_layout("diffusers", TINY)
    chosen = [name for name in sorted(tensors) if name.endswith(("attn1.to_q.weight", "attn2.to_k.weight"))][:12]
    shapes = {}
    for name in chosen:
        out, into = tensors[name].shape[:2]
        shapes |= {f"{name[:-7]}.up": (out, RANK), f"{name[:-7]}.down": (RANK, into)}
    return random_tensors(shapes, 5)


def originals() -> dict[str, bytes]:
    """Make undamaged files of several forms: name -> bytes."""
    pairs = named()
    peft, kohya = {}, {}
    for name, tensor in pairs.items():
        base, _, part = name.rpartition(".")
        peft[f"unet.{base}.lora_{'B' if part == 'up' else 'A'}.weight"] = tensor
        kohya[f"lora_unet_{base.replace('.', '_')}.lora_{part}.weight"] = tensor
        kohya[f"lora_unet_{base.replace('.', '_')}.alpha"] = torch.tensor(1.5)
    return {
        "peft.safetensors": save(peft),
        "kohya.safetensors": save(kohya, {"ss_network_dim": "2", "ss_network_alpha": "1.5"}),
        "kohya.pt": saved(kohya),
        "list.pt": saved(unnamed()),
    }


def unnamed() -> list[torch.Tensor]:
    """A list of up, down, up, down … in the order of VideoCrafter's modules."""
    shapes = {}
    for number, (_, shape) in enumerate(videocrafter_order(TINY)):
        ones = (1,) * (len(shape) - 2)
        shapes |= {f"{number}.up": (shape[0], RANK, *ones), f"{number}.down": (RANK, *shape[1:])}
    return list(random_tensors(shapes, 6).values())


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def retensored(rng: random.Random, data: bytes, name: str, witness: str) -> bytes:
    """Change single tensors or their names."""
    content: Any = load(data) if name.endswith(".safetensors") else torch.load(io.BytesIO(data), weights_only=True)
    tensors = dict(content) if isinstance(content, dict) else dict(enumerate(content))
    for _ in range(rng.choice([1, 1, 3])):
        key = rng.choice(list(tensors))
        tensors[key] = changed(rng, tensors[key])
        kind = rng.randrange(6)
        if kind == 0 and isinstance(key, str):
            at = rng.randrange(len(key))
            tensors[key[:at] + rng.choice("abxyz._0123456789\u00e9") * rng.choice([1, 1, 500]) + key[at + 1 :]] = (
                tensors.pop(key)
            )
        elif kind == 1:
            del tensors[key]
        elif kind == 2 and isinstance(key, str):
            tensors[f"{key}.alpha"] = torch.tensor(rng.choice([0.0, -1.0, float("nan"), 1e30]))
    if name.endswith(".safetensors"):
        return save({str(key): tensor.contiguous() for key, tensor in tensors.items()})
    if rng.random() < 0.2:
        tensors[rng.choice(list(tensors) or [0])] = rng.choice([None, "text", 3, [torch.zeros(2)], {}, 1e400])
    return saved(tensors if isinstance(content, dict) else list(tensors.values()))


def changed(rng: random.Random, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of other numbers, another shape or type, or the given one."""
    kind = rng.randrange(9)
    if kind == 0:
        return torch.full_like(tensor, rng.choice([float("nan"), float("inf"), 1e30]))
    if kind == 1:
        return tensor.reshape(-1)
    if kind == 2:
        return tensor[:0] if tensor.ndim else tensor.reshape(1, 1, 1, 1, 1, 1)
    if kind == 3:
        return tensor.t().contiguous() if tensor.ndim == 2 else tensor
    if kind == 4:
        return tensor.to(rng.choice([torch.int64, torch.bool, torch.float16, torch.float64, torch.bfloat16]))
    if kind == 5:
        return torch.cat([tensor, tensor]) if tensor.ndim else torch.stack([tensor] * 3)
    return tensor


MUTATIONS = (
    checkpoints.truncated, checkpoints.flipped, checkpoints.flipped_header, checkpoints.overwritten, checkpoints.inserted,
    retensored, retensored, retensored, checkpoints.with_code, checkpoints.something_else,
)  # fmt: skip


def mutate(seed: int, files: dict[str, bytes], witness: str) -> tuple[str, str, bytes]:
    """Make the file number `seed`: (mutation, name, bytes)."""
    rng = random.Random(seed)
    name = rng.choice(sorted(files))
    mutation = MUTATIONS[seed % len(MUTATIONS)]
    return mutation.__name__, name, mutation(rng, files[name], name, witness)


if __name__ == "__main__":
    sys.exit(command(__doc__, "lora", originals(), mutate))
