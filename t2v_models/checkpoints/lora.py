"""LoRA: low-rank changes of a model's weights, W += strength * alpha / rank * up @ down."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from ..errors import T2VError
from ..unet import UNet3D, UNetConfig
from .detect import find_parts, unet_config
from .lora_formats import read_lora
from .lora_pairs import Lora, LoraPair
from .tensors import LazyDict, LazyTensor, as_lazy

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoraReport:
    """What became of one LoRA."""

    path: str
    strength: float
    applied: int
    skipped: tuple[str, ...]
    """Targets that the model does not have."""


def apply_loras(
    target: UNet3D | dict[str, torch.Tensor],
    loras: Sequence[tuple[str | os.PathLike[str] | Lora, float]],
) -> list[LoraReport]:
    """Add LoRAs to the weights of a UNet, in place; float32 inside, each weight converted back to its own type.

    T2V-Turbo's lists hold a change of the guidance embedding, which their base models lack: a state dict gets that
    weight, and `load_unet` of it a UNet with the embedding; a UNet that lacks it skips the change.

    Args:
        target: the UNet, or its canonical state dict.
        loras: (file or `Lora`, strength); all add up.

    Returns:
        One report per LoRA; what was skipped is logged too.

    Raises:
        T2VError: where no key of a LoRA fits the model, or a change has another shape than its weight.
    """
    if isinstance(target, UNet3D):
        config, weights = target.config, dict(target.named_parameters())
    else:
        parts = find_parts(as_lazy(target))
        if "unet" not in parts:
            raise T2VError("The state dict holds no UNet: a LoRA cannot be applied to it.")
        config, _ = unet_config(parts["unet"], "the state dict")
        weights = target
    reports = []
    for source, strength in loras:
        lora = source if isinstance(source, Lora) else read_lora(source, config)
        skipped = []
        for name, pair in lora.unet.items():
            if name not in weights and name == "time_cond_proj.weight" and not isinstance(target, UNet3D):
                weights[name] = torch.zeros(pair.shape, dtype=next(iter(weights.values())).dtype)
            if name not in weights:
                skipped.append(name)
                continue
            _add(weights[name], pair, strength, f"{lora.path}: {name}")
        applied = len(lora.unet) - len(skipped)
        if not applied:
            raise T2VError(_no_key(lora))
        if skipped or lora.unknown:
            count = len(skipped) + len(lora.unknown)
            log.warning("%s: %d keys applied, %d do not fit this model: %s", lora.path, applied, count, [
                *skipped, *lora.unknown][:3])  # fmt: skip
        reports.append(LoraReport(lora.path, strength, applied, (*skipped, *lora.unknown)))
    return reports


def with_loras(
    tensors: LazyDict, config: UNetConfig, loras: Sequence[tuple[str | os.PathLike[str] | Lora, float]]
) -> LazyDict:
    """Canonical tensors that are merged with LoRAs when they are loaded; otherwise as `apply_loras`."""
    result = dict(tensors)
    for source, strength in loras:
        lora = source if isinstance(source, Lora) else read_lora(source, config)
        missing = [name for name in lora.unet if name not in result]
        if "time_cond_proj.weight" in missing:
            shape, dtype = lora.unet["time_cond_proj.weight"].shape, next(iter(result.values())).dtype
            result["time_cond_proj.weight"] = LazyTensor(dtype, shape, partial(torch.zeros, shape, dtype=dtype))
            missing.remove("time_cond_proj.weight")
        if len(missing) == len(lora.unet):
            raise T2VError(_no_key(lora))
        if missing or lora.unknown:
            log.warning("%s: %d keys do not fit this model", lora.path, len(missing) + len(lora.unknown))
        for name, pair in lora.unet.items():
            if name in result:
                merge = partial(_merged, pair=pair, strength=strength, what=f"{lora.path}: {name}")
                result[name] = result[name].then(merge, result[name].shape)
    return result


def lora_weights(lora: Lora) -> dict[str, tuple[torch.Tensor, torch.Tensor, float]]:
    """Canonical weight name -> (up, down, alpha), for a host that merges by itself; alpha / rank is the scale."""
    return {name: (pair.up, _merged_down(pair), pair.scale * pair.rank) for name, pair in lora.unet.items()}


def host_state_dict(lora: Lora) -> dict[str, torch.Tensor]:
    """The LoRA in kohya's names for our modules ("lora_unet_input_blocks_1_0_…"), which ComfyUI's loader knows."""
    result = {}
    for name, (up, down, alpha) in lora_weights(lora).items():
        key = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
        result[f"{key}.lora_up.weight"], result[f"{key}.lora_down.weight"] = up, down
        result[f"{key}.alpha"] = torch.tensor(float(alpha))
    for name, pair in lora.text_encoder.items():
        key = "lora_te_" + name.removesuffix(".weight").replace(".", "_")
        result[f"{key}.lora_up.weight"], result[f"{key}.lora_down.weight"] = pair.up, _merged_down(pair)
        result[f"{key}.alpha"] = torch.tensor(float(pair.scale * pair.rank))
    return result


def _merged_down(pair: LoraPair) -> torch.Tensor:
    if pair.mid is None:
        return pair.down
    return torch.einsum("rs...,si->ri...", pair.mid.float(), pair.down.float().flatten(1)).to(pair.down.dtype)


@torch.no_grad()
def _add(weight: torch.Tensor, pair: LoraPair, strength: float, what: str) -> None:
    weight.copy_(_merged(weight, pair, strength, what))


def _merged(weight: torch.Tensor, pair: LoraPair, strength: float, what: str) -> torch.Tensor:
    try:
        change = pair.delta(weight.shape) * strength
    except (ValueError, RuntimeError) as error:
        raise T2VError(f"{what} does not fit this model: {error}. It was made for another one.") from error
    return (weight.float() + change.to(weight.device)).to(weight.dtype)


def _no_key(lora: Lora) -> str:
    names = [*lora.unet, *lora.unknown]
    if lora.text_encoder and not names:
        return f"{lora.path} changes only the text encoder: apply it there."
    return (
        f"{lora.path}: none of its {len(names)} keys fits this model (the first: {names[0] if names else 'none'}). "
        "It was made for another kind of model."
    )
