"""LoRAs of every format that these models have, as patches of the host."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import comfy.lora
import folder_paths
from torch import Tensor

from ....t2v_models.checkpoints.lora import read_lora
from ....t2v_models.checkpoints.lora_pairs import LoraChange, LoraDiff, LoraPair, fits
from ....t2v_models.errors import T2VError
from ....t2v_models.family_matching import family_for
from ....t2v_models.foreign import quoted
from . import folders
from .model import video_model
from .model_sampling import is_scaled, make_model_sampling

log = logging.getLogger(__name__)


def names() -> list[str]:
    """List the files in models/loras."""
    return folder_paths.get_filename_list("loras")


def apply(model: Any, clip: Any, name: str, strength_model: float, strength_clip: float) -> tuple[Any, Any]:
    """Return clones of MODEL and CLIP with the LoRA among their patches; a strength of 0 leaves that part as it is.

    Whatever of the file is not applied is logged.

    Raises:
        T2VError: where the file has gone or holds no LoRA, or where nothing of it fits.
    """
    inner = video_model(model)
    lora = read_lora(folders.file_path("loras", name), inner.diffusion_model.config)
    weights = inner.diffusion_model.state_dict()
    used, skipped, tried = 0, list(lora.unknown), False
    if strength_model != 0:
        unet_keys = {key: (f"diffusion_model.{key}", value.shape) for key, value in weights.items()}
        model, used, others = _patched(model, model.clone(), lora.unet, unet_keys, strength_model)
        skipped, tried = [*others, *skipped], True
    if clip is not None and strength_clip != 0 and lora.text_encoder:
        weights = clip.cond_stage_model.state_dict()
        stored = {key.split("transformer.", 1)[-1]: (key, value.shape) for key, value in weights.items()}
        clip, more, others = _patched(clip, clip.clone(), lora.text_encoder, stored, strength_clip)
        used, skipped, tried = used + more, [*skipped, *others], True
    if tried and not used:
        first = next(iter([*lora.unet, *lora.text_encoder, *lora.unknown]), "none")
        raise T2VError(
            f'Nothing in the LoRA "{name}" fits this model (first of its names: {quoted(first)}): is it for another?'
        )
    if "time_cond_proj.weight" in lora.unet and strength_model != 0:
        _become_turbo(model, lora.unet["time_cond_proj.weight"].shape[-1])
    if skipped and tried:
        log.warning(
            "%s: %d of its changes do not fit this model: %s.", name, len(skipped), quoted(list(skipped[:3]), 600)
        )
    if clip is None and lora.text_encoder:
        log.warning(
            "%s also changes %d weights of the text encoder: connect CLIP to apply them.", name, len(lora.text_encoder)
        )
    return model, clip


def _become_turbo(model: Any, guidance_dim: int) -> None:
    """Give MODEL the noise schedule of T2V-Turbo, whose LoRA it has got."""
    inner = video_model(model)
    config = dataclasses.replace(inner.diffusion_model.config, guidance_dim=guidance_dim)
    theirs, own = family_for(config).scheduler_config(), model.get_model_object("scheduler")
    steps = {name: theirs[name] for name in ("original_inference_steps", "even_steps") if name in theirs}
    model.add_object_patch("scheduler", own | steps | {"_class_name": "LCMScheduler"})
    present = model.get_model_object("model_sampling")
    if is_scaled(present):
        # it was distilled without the scale that VideoCrafter2's signal has
        plain = make_model_sampling(present.schedule.without_scale(), inner.model_config)
        model.add_object_patch("model_sampling", plain)


def _patched(
    original: Any,
    clone: Any,
    changes: Mapping[str, LoraChange],
    keys: dict[str, tuple[str, Sequence[int]]],
    strength: float,
) -> tuple[Any, int, list[str]]:
    """The clone with those changes as patches that fit, their number, and the names of the others.

    keys: for every weight's name, the host's name and the shape.
    """
    tensors: dict[str, Tensor] = {}
    to_load, skipped, patches = {}, [], {}
    for name, change in changes.items():
        key, shape = keys.get(name, ("", ()))
        if not key or not fits(change, shape):
            skipped.append(name)
        elif isinstance(change, LoraDiff):
            patches[key] = ("diff", (change.value.reshape(tuple(shape)),))
        else:
            to_load[name] = key
            tensors |= _kohya(name, change)
    patches |= comfy.lora.load_lora(tensors, to_load)
    clone.add_patches(patches, strength)
    return (clone if patches else original), len(patches), skipped


def _kohya(name: str, pair: LoraPair) -> dict[str, Tensor]:
    """A pair's tensors by the names that the host's own loader takes."""
    tensors = {f"{name}.lora_up.weight": pair.up, f"{name}.lora_down.weight": pair.down}
    if pair.mid is not None:
        tensors[f"{name}.lora_mid.weight"] = pair.mid
    if pair.alpha is not None:
        tensors[f"{name}.alpha"] = pair.up.new_tensor(pair.alpha)
    return tensors
