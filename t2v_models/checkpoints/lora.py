"""LoRA: changes of a model's weights, W += strength * alpha / rank * up @ down, or strength * a whole change."""

from __future__ import annotations

import logging
import os
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from ..errors import T2VError
from ..foreign import quoted
from ..unet import UNet3D, UNetConfig
from .detect import find_parts, unet_config
from .lora_formats import read_lora
from .lora_pairs import Lora, LoraChange
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
    text_encoder: int = 0
    """How many weights of the text encoder the file changes, which `apply_loras` leaves as they are."""


def apply_loras(target: UNet3D | dict[str, torch.Tensor], loras: Sequence[tuple[Source, float]]) -> list[LoraReport]:
    """Add LoRAs to the weights of a UNet, in place; the sums are float32, and each weight keeps its own type.

    T2V-Turbo's lists change the guidance embedding, which their base models lack: a state dict gets that weight, and
    `load_unet` of it gives a UNet with the embedding; a UNet without the embedding skips the change.

    Args:
        target: the UNet, or its state dict under the names of `UNet3D`.
        loras: (file or `Lora`, strength); all are added. Changes of a text encoder are logged and left to
            `t2v_models.load_pipeline`.

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
    if grow and GUIDANCE in lora.unet and GUIDANCE not in weights:
        weights[GUIDANCE] = torch.zeros(lora.unet[GUIDANCE].shape, dtype=next(iter(weights.values())).dtype)
    applied = [name for name in lora.unet if name in weights]
    skipped = _skipped(lora, weights)
    report_text_encoder(lora)
    with torch.no_grad():
        for name in applied:
            weights[name].copy_(_merged(weights[name], lora.unet[name], strength, f"{lora.path}: {name}"))
    return LoraReport(lora.path, strength, len(applied), skipped, len(lora.text_encoder))


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
        _skipped(lora, result)
        for name, change in lora.unet.items():
            if name in result:
                merge = partial(_merged, change=change, strength=strength, what=f"{lora.path}: {name}")
                result[name] = result[name].then(merge, result[name].shape)
    return result


def merge_text_encoder(weights: dict[str, torch.Tensor], loras: Sequence[tuple[Lora, float]]) -> None:
    """Add the changes of a text encoder to its weights, by the names of transformers' CLIPTextModel, in place.

    Raises:
        T2VError: where nothing in a LoRA of the text encoder alone fits; where a change has another shape than its weight.
    """
    for lora, strength in loras:
        lacking = [name for name in lora.text_encoder if name not in weights]
        if lacking and not lora.unet and len(lacking) == len(lora.text_encoder):
            raise T2VError(
                f"{lora.path} changes a text encoder alone, and none of its {len(lacking)} keys fits this model's (the "
                f"first: {quoted(lacking[0])}). It was made for another kind of model."
            )
        unknown = () if lora.unet else lora.unknown  # what the UNet is given names them
        report_skipped(lora, len(lora.text_encoder) - len(lacking), (*lacking, *unknown))
        for name, change in lora.text_encoder.items():
            if name in weights:
                weights[name] = _merged(weights[name], change, strength, f"{lora.path}: {name}")


def with_guidance(config: UNetConfig, tensors: LazyDict) -> UNetConfig:
    """Return the configuration of a UNet with these tensors, to which a LoRA may have added the guidance embedding."""
    return replace(config, guidance_dim=tensors[GUIDANCE].shape[-1]) if GUIDANCE in tensors else config


def report_skipped(lora: Lora, applied: int, skipped: Sequence[str]) -> None:
    """Log what of a LoRA does not fit a model, if anything."""
    if skipped:
        many = "%s: %d keys applied, %d do not fit this model: %s"
        log.warning(many, lora.path, applied, len(skipped), quoted(list(skipped[:3]), 600))


def report_text_encoder(lora: Lora) -> None:
    """Log that a LoRA's changes of the text encoder, if it has any, are not applied."""
    if lora.text_encoder:
        log.warning(
            "%s also changes %d weights of the text encoder, which stay as they are: only the UNet is changed here.",
            lora.path, len(lora.text_encoder),
        )  # fmt: skip


def _skipped(lora: Lora, weights: Container[str]) -> tuple[str, ...]:
    """Return and log the keys of a LoRA that fit no weight of a UNet; T2VError where that are all of them."""
    missing = [name for name in lora.unet if name not in weights]
    skipped = (*missing, *lora.unknown)
    if len(missing) == len(lora.unet):
        raise T2VError(_no_key(lora))
    report_skipped(lora, len(lora.unet) - len(missing), skipped)
    return skipped


def _read(source: Source, config: UNetConfig) -> Lora:
    return source if isinstance(source, Lora) else read_lora(source, config)


def _merged(weight: torch.Tensor, change: LoraChange, strength: float, what: str) -> torch.Tensor:
    """Return weight + strength * change, in the weight's type; `what` is named in an error."""
    try:
        added = change.delta(weight.shape) * strength
    except (ValueError, RuntimeError) as error:
        raise T2VError(f"{what} does not fit this model: {error}. It was made for another one.") from error
    merged = (weight.float() + added.to(weight.device)).to(weight.dtype)
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
