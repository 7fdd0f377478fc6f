"""LoRA: low-rank changes of a model's weights, W += strength * alpha / rank * up @ down."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from ..errors import T2VError
from ..foreign import quoted
from ..unet import UNet3D, UNetConfig
from .detect import find_parts, unet_config
from .lora_formats import read_lora
from .lora_pairs import Lora, LoraPair
from .tensors import LazyDict, LazyTensor, as_lazy

log = logging.getLogger(__name__)

Source = str | os.PathLike[str] | Lora
"""A LoRA, or its file."""

GUIDANCE = "time_cond_proj.weight"
"""The weight of the guidance embedding, which T2V-Turbo's LoRAs bring and their base models lack."""


@dataclass(frozen=True)
class LoraReport:
    """What `apply_loras` did with one LoRA."""

    path: str
    strength: float
    applied: int
    """How many weights were changed."""
    skipped: tuple[str, ...]
    """Keys that do not fit the model."""


def apply_loras(target: UNet3D | dict[str, torch.Tensor], loras: Sequence[tuple[Source, float]]) -> list[LoraReport]:
    """Add LoRAs to the weights of a UNet, in place; the sums are float32, and each weight keeps its own type.

    T2V-Turbo's lists change the guidance embedding, which their base models lack: a state dict gets that weight, and
    `load_unet` of it gives a UNet with the embedding; a UNet without the embedding skips the change.

    Args:
        target: the UNet, or its state dict under the names of `UNet3D`.
        loras: (file or `Lora`, strength); all are added.

    Returns:
        One report per LoRA; what was skipped is logged too.

    Raises:
        T2VError: where no key of a LoRA fits the model, or a change has another shape than its weight.
    """
    weights: dict[str, torch.Tensor]
    if isinstance(target, UNet3D):
        config, weights = target.config, dict(target.named_parameters())
    else:
        parts = find_parts(as_lazy(target))
        if "unet" not in parts:
            raise T2VError("The state dict holds no UNet: a LoRA cannot be applied to it.")
        config, _ = unet_config(parts["unet"], "the state dict")
        weights = target
    return [_apply(weights, _read(source, config), strength, grow=weights is target) for source, strength in loras]


def _apply(weights: dict[str, torch.Tensor], lora: Lora, strength: float, *, grow: bool) -> LoraReport:
    """Add one LoRA to weights; `grow` adds the weight of the guidance embedding where it is missing."""
    skipped = []
    for name, pair in lora.unet.items():
        if grow and name == GUIDANCE and name not in weights:
            weights[name] = torch.zeros(pair.shape, dtype=next(iter(weights.values())).dtype)
        if name in weights:
            with torch.no_grad():
                weights[name].copy_(_merged(weights[name], pair, strength, f"{lora.path}: {name}"))
        else:
            skipped.append(name)
    skipped += lora.unknown
    applied = len(lora.unet) + len(lora.unknown) - len(skipped)
    if not applied:
        raise T2VError(_no_key(lora))
    if skipped:
        many = "%s: %d keys applied, %d do not fit this model: %s"
        log.warning(many, lora.path, applied, len(skipped), quoted(skipped[:3], 600))
    return LoraReport(lora.path, strength, applied, tuple(skipped))


def with_loras(tensors: LazyDict, config: UNetConfig, loras: Sequence[tuple[Source, float]]) -> LazyDict:
    """Return tensors of a UNet that are merged with LoRAs when they are loaded.

    Args:
        tensors: under the names of `UNet3D`. Where the guidance embedding is missing and a LoRA changes it, it is added.
        config: of the UNet.
        loras: (file or `Lora`, strength); all are added.

    Raises:
        T2VError: where no key of a LoRA fits the model; when a tensor is loaded, where a change has another shape.
    """
    result = dict(tensors)
    for source, strength in loras:
        lora = _read(source, config)
        if GUIDANCE in lora.unet and GUIDANCE not in result:
            shape, dtype = lora.unet[GUIDANCE].shape, next(iter(result.values())).dtype
            result[GUIDANCE] = LazyTensor(dtype, shape, partial(torch.zeros, shape, dtype=dtype))
        missing = [name for name in lora.unet if name not in result]
        if len(missing) == len(lora.unet):
            raise T2VError(_no_key(lora))
        if missing or lora.unknown:
            log.warning("%s: %d keys do not fit this model", lora.path, len(missing) + len(lora.unknown))
        for name, pair in lora.unet.items():
            if name in result:
                merge = partial(_merged, pair=pair, strength=strength, what=f"{lora.path}: {name}")
                result[name] = result[name].then(merge, result[name].shape)
    return result


def _read(source: Source, config: UNetConfig) -> Lora:
    return source if isinstance(source, Lora) else read_lora(source, config)


def _merged(weight: torch.Tensor, pair: LoraPair, strength: float, what: str) -> torch.Tensor:
    """Return weight + strength * the pair's change, in the weight's type; `what` is named in an error."""
    try:
        change = pair.delta(weight.shape) * strength
    except (ValueError, RuntimeError) as error:
        raise T2VError(f"{what} does not fit this model: {error}. It was made for another one.") from error
    merged = (weight.float() + change.to(weight.device)).to(weight.dtype)
    if merged.dtype == torch.float16 and bool(merged.isinf().any()) and bool(weight.isfinite().all()):
        raise T2VError(
            f"{what} becomes larger than float16 holds: lower the LoRA's strength, or load the model in float32."
        )
    return merged


def _no_key(lora: Lora) -> str:
    names = [*lora.unet, *lora.unknown]
    if lora.text_encoder and not names:
        return f"{lora.path} changes only the text encoder: apply it there."
    return (
        f"{lora.path}: none of its {len(names)} keys fits this model (the first: {quoted(names[0]) if names else 'none'}). "
        "It was made for another kind of model."
    )
