"""The configurations beside a model's weights, checked before use: a stranger wrote them.

What follows from the shapes of the weights is taken from there. Of a file only the entries in the tables below are used,
and each must have the form that it has in files of diffusers and transformers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import T2VError
from ..foreign import quoted

Check = tuple[str, Callable[[Any], bool]]
"""What is wanted, in words, and whether a value is that."""


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, and no truth value."""
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15 and math.isfinite(value)
    )


def _number(least: float, most: float) -> Check:
    return f"a number from {least:g} to {most:g}", lambda value: is_number(value) and least <= value <= most


def _count(least: int, most: int) -> Check:
    return f"a whole number from {least} to {most}", lambda value: type(value) is int and least <= value <= most


def _one_of(*choices: str) -> Check:
    return f"one of {', '.join(choices)}", lambda value: isinstance(value, str) and value in choices


def _betas(value: Any) -> bool:
    return isinstance(value, list) and 0 < len(value) <= 100_000 and all(is_number(b) and 0 <= b <= 1 for b in value)


def _size(value: Any) -> bool:
    sizes = value if isinstance(value, list) and len(value) <= 2 else [value]
    return all(type(size) is int and 0 < size <= 1 << 16 for size in sizes)


_FLAG: Check = ("true or false", lambda value: isinstance(value, bool))
_ACTIVATIONS = _one_of("silu", "swish", "mish", "gelu", "gelu_new", "quick_gelu", "relu")
_TOKEN = _count(-1, 1 << 24)

VAE: dict[str, Check] = {
    "act_fn": _ACTIVATIONS,
    "force_upcast": _FLAG,
    "norm_num_groups": _count(1, 1 << 12),
    "sample_size": ("a size in pixels", _size),
    "scaling_factor": _number(1e-6, 1e3),
    "shift_factor": _number(-1e3, 1e3),
}
"""Entries of diffusers' AutoencoderKL that shapes do not give."""

TEXT_ENCODER: dict[str, Check] = {
    "attention_dropout": _number(0, 1),
    "bos_token_id": _TOKEN,
    "eos_token_id": _TOKEN,
    "hidden_act": _ACTIVATIONS,
    "initializer_factor": _number(0, 1e3),
    "initializer_range": _number(0, 1e3),
    "layer_norm_eps": _number(0, 1),
    "num_attention_heads": _count(1, 1 << 12),
    "pad_token_id": _TOKEN,
    "projection_dim": _count(1, 1 << 16),
}
"""Entries of transformers' CLIPTextModel that shapes do not give."""

IMAGE_ENCODER: dict[str, Check] = {
    name: TEXT_ENCODER[name] for name in ("attention_dropout", "hidden_act", "layer_norm_eps", "num_attention_heads")
}
"""Entries of transformers' CLIPVisionModel that shapes do not give."""

SCHEDULER: dict[str, Check] = {
    "beta_end": _number(0, 1),
    "beta_schedule": _one_of("scaled_linear", "linear", "squaredcos_cap_v2"),
    "beta_start": _number(0, 1),
    "clip_sample": _FLAG,
    "even_steps": (
        "true, false or a number of steps",
        lambda value: type(value) in (bool, int) and 0 <= value <= 100_000,
    ),
    "num_train_timesteps": _count(1, 100_000),
    "original_inference_steps": _count(1, 100_000),
    "prediction_type": _one_of("epsilon", "v_prediction"),
    "rescale_betas_zero_snr": _FLAG,
    "scale_base": _number(0, 10),
    "set_alpha_to_one": _FLAG,
    "steps_offset": _count(0, 1000),
    "timestep_spacing": _one_of("leading", "trailing", "linspace"),
    "trained_betas": ("a list of numbers from 0 to 1", _betas),
}
"""Entries of a diffusers scheduler that decide on the noise schedule and its timesteps."""


def checked(values: Mapping[str, Any], table: Mapping[str, Check], source: str) -> dict[str, Any]:
    """Return the entries of a configuration that a table knows; those that are null count as not given.

    Args:
        values: what a file holds.
        table: see `VAE`, `TEXT_ENCODER`, `IMAGE_ENCODER` and `SCHEDULER`.
        source: what to call the configuration in an error.

    Raises:
        T2VError: for a value of another form.
    """
    result = {name: value for name, value in values.items() if name in table and value is not None}
    for name, value in result.items():
        wanted, fits = table[name]
        if not fits(value):
            raise T2VError(
                f"{source} says {name}: {quoted(value)}, and {wanted} is wanted: download it again, or remove it."
            )
    return result


def checked_scheduler(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return a scheduler's configuration, checked; short texts and plain numbers beyond the table stay.

    Raises:
        T2VError: for a value of another form.
    """
    checked(values, SCHEDULER, source)
    return {name: value for name, value in values.items() if name in SCHEDULER or is_plain(value, rows=0)}


def is_plain(value: Any, *, rows: int = 2) -> bool:
    """Whether a value is null, a truth value, a number, a text of one line or so, or a short list of such, `rows` deep."""
    if isinstance(value, (list, tuple)):
        return rows > 0 and len(value) <= 64 and all(is_plain(item, rows=rows - 1) for item in value)
    if isinstance(value, str):
        return len(value) <= 1000
    return value is None or isinstance(value, bool) or is_number(value) or value in (math.inf, -math.inf)
