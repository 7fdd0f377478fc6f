"""Finished parts of long works in the output folder, and what tells one work from another, so that only its own go on."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import folder_paths
from torch import Tensor

from ...t2v_models.fingerprint import sample_bytes, weights_digest
from .compat import unpatched

log = logging.getLogger(__name__)

FINISHED = "finished"
"""An empty file in the folder of a work that is finished."""


def folder(*about: Any) -> Path:
    """Return the folder, under the output folder, for the finished parts of a work that these values describe."""
    name = hashlib.sha256(repr(about).encode()).hexdigest()[:16]
    return Path(folder_paths.get_output_directory()) / "t2v_unfinished" / name


def finish(folder: Path) -> None:
    """Mark a work's folder as finished, and remove those of works that were finished before: they are saved by now."""
    for mark in folder.parent.glob(f"*/{FINISHED}"):
        if mark.parent != folder:
            shutil.rmtree(mark.parent, ignore_errors=True)
    with contextlib.suppress(OSError):  # the work is whole
        (folder / FINISHED).touch()


def resumable(what: str, unknowable: list[str]) -> bool:
    """Whether a stopped work would continue with the same model; logs why not. what: begins the sentence."""
    if unknowable:
        log.warning(
            "%s is made without a way to resume it: other nodes have set code on the model (%s), which cannot be "
            "compared with that of a later run.",
            what,
            ", ".join(unknowable),
        )
    return not unknowable


def code_on(model: Any, *others: Any) -> list[str]:
    """Return the names of what other nodes have set on a MODEL, and on other patchers, that no digest covers, such as FreeU."""
    given = model.model_options.get("transformer_options", {})
    names = [name for key in ("patches", "patches_replace") for name, code in given.get(key, {}).items() if code]
    names += ["optimized_attention_override"] if given.get("optimized_attention_override") else []
    names += [key for key in model.object_patches if key.startswith("diffusion_model.")]
    for patcher in (model, *others):
        names += [*patcher.injections, *patcher.weight_wrapper_patches]  # LoRAs that are added, not merged
        names += ["hooks"] if patcher.forced_hooks else []
    return names


def patcher_digest(patcher: Any) -> str:
    """Digest a patcher's own weights, and the LoRAs on it; of a MODEL's the UNet's, since a patch may stand for its schedule."""
    digest = hashlib.sha256(_weights(patcher).encode())
    for key, patches in sorted(patcher.patches.items(), key=repr):
        digest.update(repr(key).encode())
        feed(digest, patches)
    return digest.hexdigest()


def _weights(patcher: Any) -> str:
    unet, prefix = getattr(patcher.model, "diffusion_model", None), "diffusion_model."
    if unet is None:
        return weights_digest(patcher.model, unpatched(patcher))
    own = {name: value for name, value in unpatched(patcher).items() if name.startswith(prefix)}
    return weights_digest(unet, {name.removeprefix(prefix): value for name, value in own.items()})


def feed(digest: Any, value: Any) -> None:
    """Add values to a digest: numbers, texts, tensors, lists and mappings of them, and adapters that hold some."""
    if isinstance(value, Tensor):
        digest.update(sample_bytes(value))
    elif isinstance(value, list | tuple):
        for each in value:
            feed(digest, each)
    elif isinstance(value, Mapping):
        feed(digest, _items(value))
    elif hasattr(value, "weights"):
        feed(digest, value.weights)
    elif value is None or isinstance(value, str | int | float):
        digest.update(repr(value).encode())


def _items(mapping: Mapping[Any, Any]) -> Iterable[Any]:
    return [part for key in sorted(mapping, key=repr) for part in (repr(key), mapping[key])]
