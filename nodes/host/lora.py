"""LoRAs of the formats that these models have come with."""

from __future__ import annotations

from typing import Any

import comfy.sd
import comfy.utils
import folder_paths

from ...t2v_models.errors import T2VError
from . import folders
from .model import video_model


def names() -> list[str]:
    """The files of models/loras."""
    return folder_paths.get_filename_list("loras")


def apply(model: Any, clip: Any, name: str, strength_model: float, strength_clip: float) -> tuple[Any, Any]:
    """Clones of MODEL and CLIP with the LoRA added to their patches. Raises T2VError where nothing of it fits."""
    inner = video_model(model)
    if strength_model == 0 and (clip is None or strength_clip == 0):
        return model, clip
    state_dict = comfy.utils.load_torch_file(str(folders.file_path("loras", name)), safe_load=True)
    state_dict = convert(state_dict, inner.diffusion_model.config)
    patched, patched_clip = comfy.sd.load_lora_for_models(model, clip, state_dict, strength_model, strength_clip)
    if len(patched.patches) == len(model.patches) and (
        clip is None or len(patched_clip.patcher.patches) == len(clip.patcher.patches)
    ):
        first = next(iter(state_dict), "none")
        raise T2VError(
            f'Nothing in the LoRA "{name}" fits this model (first of its names: {first}): is it for another one?'
        )
    return patched, patched_clip


def convert(state_dict: dict[str, Any], config: Any) -> dict[str, Any]:
    """Any format to the names that the host's loader knows."""
    return state_dict
