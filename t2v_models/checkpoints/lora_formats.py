"""Read LoRA files: the formats in which names with endings say which weight a tensor changes, and lists."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from ..errors import AGAIN, T2VError
from ..foreign import parse_json, quoted, read_json_file
from ..unet import PRESETS, UNetConfig
from .files import file_metadata, read_file
from .layouts import canonical_shapes
from .lora_lists import ordered_tensors, pairs_of_list
from .lora_pairs import Lora, LoraChange, LoraDiff, LoraPair, check_halves, finite, known_modules
from .tensors import LazyDict
from .wrappers import without_wrappers

_ENDINGS = (
    (re.compile(r"\.lora_A(?:\.\w+)?\.weight$"), "down", "diffusers"),
    (re.compile(r"\.lora_B(?:\.\w+)?\.weight$"), "up", "diffusers"),
    (re.compile(r"\.lora(?:_linear_layer)?\.down\.weight$"), "down", "diffusers"),
    (re.compile(r"\.lora(?:_linear_layer)?\.up\.weight$"), "up", "diffusers"),
    (re.compile(r"_lora\.down\.weight$"), "down", "diffusers"),
    (re.compile(r"_lora\.up\.weight$"), "up", "diffusers"),
    (re.compile(r"\.lora_down\.weight$"), "down", "kohya"),
    (re.compile(r"\.lora_up\.weight$"), "up", "kohya"),
    (re.compile(r"\.lora_mid\.weight$"), "mid", "kohya"),
    (re.compile(r"\.alpha$"), "alpha", "kohya"),
    (re.compile(r"\.(?:diff|w_norm)$"), "diff", "kohya"),  # whole changes: ComfyUI's trainer, and LyCORIS of norms
    (re.compile(r"\.(?:diff_b|b_norm)$"), "diff_b", "kohya"),
    (re.compile(r"\.lora_A$"), "down", "stable_lora"),
    (re.compile(r"\.lora_B$"), "up", "stable_lora"),
)
_OTHERS = {"hada_w": "LoHa", "lokr_w": "LoKr", "dora_scale": "DoRA", "lora_magnitude": "DoRA", "oft_": "OFT"}
_PREFIXES = ("base_model.model.", "model.diffusion_model.", "diffusion_model.", "unet.", "lora_unet_", "lycoris_")
_TEXT_PREFIXES = (
    "base_model.model.", "text_encoder.", "lora_te_", "lora_te1_", "cond_stage_model.",
    "text_encoders.", "clip_h.", "clip_l.", "transformer.",  # ComfyUI's own
)  # fmt: skip


def read_lora(path: str | os.PathLike[str], config: UNetConfig | None = None) -> Lora:
    """Read a LoRA file of any of the formats, without running code in it.

    Args:
        path: a safetensors or PyTorch file.
        config: of the UNet it is for; None tries those of the published models.

    Raises:
        T2VError: where the file is no LoRA, is incomplete, or fits no known model.
    """
    path = Path(path)
    tensors = without_wrappers(read_file(path), around=True)
    ordered = ordered_tensors(path, tensors)
    if ordered is not None:
        return Lora(str(path), "list", pairs_of_list(path, ordered, config), {})
    for ending, name in _OTHERS.items():
        if any(ending in key for key in tensors):
            raise T2VError(f"{path} is a {name}, which is not supported: merge it into the model with its own tools.")
    halves, form, unknown = _halves(path, tensors)
    alpha, by_root = _common_alpha(path)
    table, texts = known_modules(config), _text_modules()
    shapes = canonical_shapes(config or PRESETS["t2v-turbo-v2"])
    unet: dict[str, LoraChange] = {}
    text: dict[str, LoraChange] = {}
    for name, half in halves.items():
        for role, change in _changes(path, name, half, alpha, by_root):
            found = _find(name, _PREFIXES, table)
            target, found = (unet, found) if found else (text, _find(name, _TEXT_PREFIXES, texts))
            if found and role == "diff_b":
                found = found.removesuffix(".weight") + ".bias"
            if change is None or not found or found in target:  # averaged weights lie beside the others
                unknown.append(name if role == "pair" else f"{name}.{role}")
            elif form == "stable_lora" and isinstance(change, LoraPair) and target is unet:
                unet[found] = _stable(change, shapes.get(found, ()))
            else:
                target[found] = change
    return Lora(str(path), form, unet, text, tuple(unknown))


Halves = dict[str, dict[str, torch.Tensor]]
"""Module, as the file names it -> "up", "down", "mid" and "alpha" of its change; "diff" and "diff_b" are whole changes."""


def _halves(path: Path, tensors: LazyDict) -> tuple[Halves, str, list[str]]:
    """Sort a file's tensors by module; returns them, the format, and the names that belong to no LoRA."""
    halves: Halves = {}
    formats: list[str] = []
    unknown = []
    for key, tensor in tensors.items():
        for pattern, role, form in _ENDINGS:
            if pattern.search(key):
                half = halves.setdefault(pattern.sub("", key), {})
                if role in half:  # a second adapter of one module
                    unknown.append(key)
                    break
                half[role] = finite(path, key, tensor)
                formats.append(form)
                break
        else:
            unknown.append(key)
    if not any({"up", "down", "diff", "diff_b"} & set(half) for half in halves.values()):
        raise T2VError(
            f"{path} is no LoRA: none of its {len(tensors)} tensors is named like one ({quoted(next(iter(tensors)))})."
        )
    return halves, max(set(formats) - {"kohya"} or {"kohya"}, key=formats.count), unknown


def _changes(
    path: Path, name: str, half: dict[str, torch.Tensor], alpha: float | None, by_root: bool
) -> Iterator[tuple[str, LoraChange | None]]:
    """Yield the changes of one module with what they are, "pair", "diff" or "diff_b"; None for an alpha or a mid alone.

    A module's whole change counts where it has a pair, too, as in ComfyUI.
    """
    whole = {role: LoraDiff(half[role]) for role in ("diff", "diff_b") if role in half}
    yield from whole.items()
    if {"up", "down"} & set(half):
        pair = _pair(path, name, half, alpha, by_root)
        yield "pair", pair if "diff" not in whole else None
    elif alone := set(half) - set(whole):
        yield alone.pop(), None


def _pair(path: Path, name: str, half: dict[str, torch.Tensor], alpha: float | None, by_root: bool) -> LoraPair:
    """Make the pair of one module; its own alpha overrides the file's, which rsLoRA divides by the rank's root."""
    if "up" not in half or "down" not in half:
        raise T2VError(f"{path} is incomplete: {quoted(name)} has only one of its two halves. {AGAIN}")
    if "alpha" in half and half["alpha"].numel():
        alpha = float(half["alpha"].flatten()[0])
    elif by_root and alpha is not None:
        alpha *= half["down"].shape[0] ** 0.5
    pair = LoraPair(half["up"], half["down"], alpha, half.get("mid"))
    check_halves(path, name, pair)
    return pair


def _find(name: str, prefixes: tuple[str, ...], table: dict[str, str]) -> str | None:
    """Look up a module's name in a table, with and without the prefixes that trainers write before it."""
    name = name.replace(".processor.", ".").replace("_processor_", "_")
    changed = True
    while changed:
        for candidate in (name, f"{name}.0", f"{name}_0"):  # to_out is to_out.0
            if candidate in table:
                return table[candidate]
        changed = False
        for prefix in prefixes:
            if name.startswith(prefix):
                name, changed = name.removeprefix(prefix), True
                break
    return None


def _text_modules(layers: int = 24) -> dict[str, str]:
    """Map the names of the text encoder's modules, dotted or with underscores, to those of their weights."""
    parts = (
        *(f"self_attn.{x}_proj" for x in ("q", "k", "v", "out")),
        "mlp.fc1",
        "mlp.fc2",
        "layer_norm1",
        "layer_norm2",
    )
    modules = [f"text_model.encoder.layers.{i}.{part}" for i in range(layers) for part in parts]
    modules += [f"text_model.embeddings.{part}_embedding" for part in ("token", "position")]
    modules += ["text_model.final_layer_norm"]
    return {name: f"{module}.weight" for module in modules for name in (module, module.replace(".", "_"))}


def _common_alpha(path: Path) -> tuple[float | None, bool]:
    """Read the alpha that peft or a trainer stored for all modules; None where there is none.

    The second value says whether alpha is divided by the root of the rank instead of the rank: rsLoRA, Kalajdzievski
    2023 (arXiv:2312.03732).
    """
    beside = path.parent / "adapter_config.json"
    stored = file_metadata(path).get("lora_adapter_metadata")
    for values in (
        parse_json(stored, path) if stored else {},
        read_json_file(beside) if beside.is_file() else {},
    ):
        values = values if isinstance(values, dict) else {}
        for root in ("", "unet."):
            if values.get(f"{root}alpha_pattern"):
                raise T2VError(f"{path} has alphas of its own for some modules (alpha_pattern): merge it with peft.")
            alpha = values.get(f"{root}lora_alpha")
            if alpha is not None:
                if not isinstance(alpha, (int, float)) or not math.isfinite(alpha):
                    raise T2VError(f"{path} has a lora_alpha that is no number: {quoted(alpha)}. {AGAIN}")
                return float(alpha), bool(values.get(f"{root}use_rslora"))
    return None, False


def _stable(pair: LoraPair, shape: tuple[int, ...]) -> LoraPair:
    """Convert stable_lora's pair for a weight of that shape to an ordinary one.

    In stable_lora a convolution of kernel k has A (r k, in k) and B (out k, r k), and B @ A (out k, in k) is viewed as
    (out, in, k, k); that of a temporal convolution as (out, in, 3, 3, 1), and averaged over the last 3. A block of rows
    of B per kernel row gives an equal change, as the product of (out, k r k) and (k r k, in, k, k).
    """
    up, down = pair.up, pair.down
    if len(shape) != 4 or up.ndim != 2 or shape[2] == 1:
        return replace(pair, up=up.flatten(1), down=down.flatten(1)) if len(shape) == 2 else pair
    out, inside, kernel = shape[:3]
    if up.shape[0] != out * kernel or down.shape[1] != inside * kernel:
        return pair
    up = up.reshape(out, kernel * up.shape[1])
    down = torch.block_diag(*[down.float()] * kernel).to(down.dtype).reshape(-1, inside, kernel, kernel)
    if shape[3] == 1:
        down = down.float().mean(-1, keepdim=True).to(down.dtype)
    alpha = None if pair.alpha is None else pair.alpha / pair.rank * down.shape[0]
    return LoraPair(up[..., None, None], down, alpha)
