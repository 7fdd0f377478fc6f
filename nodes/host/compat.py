"""All that differs between ComfyUI versions, and nothing else. Tested from 0.3.64 to 0.24.0, read up to 0.38."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import types
from collections.abc import Callable
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import torch

from ...t2v_models import errors
from ...t2v_models.unet.group_norm import better_than_torchs

NEWER = {
    "advanced": "inputs of a schema",
    "assign": "BaseModel.load_model_weights",
    "disable_dynamic": "CLIP, load_text_encoder_state_dicts",
    "offloadable": "cast_bias_weight",
    "search_aliases": "Schema",
    "state_dict": "CLIP",
}
"""The keywords that came after the oldest host, and what takes them."""


@functools.cache
def _keywords(callable_: Callable) -> frozenset[str] | None:
    """Return the keywords that a class or function takes; None where it takes any."""
    if dataclasses.is_dataclass(callable_):
        return frozenset(field.name for field in dataclasses.fields(callable_))
    parameters = inspect.signature(callable_).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return frozenset(parameter.name for parameter in parameters)


def newer(callable_: Callable[..., Any], **options: Any) -> dict[str, Any]:
    """Return those of the options that this host's class or function takes: `f(…, **newer(f, advanced=True))`.

    Raises:
        TypeError: for an option that `NEWER` does not list, such as a misspelt one.
    """
    unknown = options.keys() - NEWER.keys()
    if unknown:
        raise TypeError(f"{', '.join(sorted(unknown))} is not in compat.NEWER: correct the name, or add it there.")
    taken = _keywords(getattr(callable_, "__func__", callable_))  # a cached bound method would keep its object alive
    return options if taken is None else {name: value for name, value in options.items() if name in taken}


def patcher_for(model: torch.nn.Module, load_device: torch.device, offload_device: torch.device, dynamic: bool = True):
    """Return this host's ModelPatcher for a whole model; since 0.11.1 it may be one with dynamic VRAM."""
    plain = comfy.model_patcher.ModelPatcher
    # Looked up at every call: the host replaces CoreModelPatcher while it starts.
    cls = getattr(comfy.model_patcher, "CoreModelPatcher", plain) if dynamic else plain
    return cls(model, load_device=load_device, offload_device=offload_device)


def is_dynamic(patcher: Any) -> bool:
    """Whether weights are loaded on use (dynamic VRAM), so that the tensors of the file must become the parameters."""
    return bool(getattr(patcher, "is_dynamic", lambda: False)())


def load_unet_weights(model: Any, patcher: Any, state_dict: dict[str, torch.Tensor]) -> None:
    """Copy the weights of the UNet into a host model, or assign them under dynamic VRAM.

    A host with dynamic VRAM makes linear layers without weights (0.24.0 on Windows, newer ones everywhere), which take
    the tensors uncast.
    """
    if is_dynamic(patcher):
        model.load_model_weights(state_dict, "", **newer(model.load_model_weights, assign=True))
        return
    lazy = {
        f"{name}.{key}": module.weight_comfy_model_dtype
        for name, module in model.diffusion_model.named_modules()
        if isinstance(module, torch.nn.Linear) and module.weight is None
        for key in ("weight", "bias")
    }
    if lazy:
        state_dict = {key: value.to(lazy.get(key, value.dtype)) for key, value in state_dict.items()}
        model.load_model_weights(state_dict, "")
        return
    for key, weight in model.diffusion_model.state_dict().items():
        weight.copy_(state_dict.pop(key))  # one by one, so that memory never holds all weights twice


def make_clip(target: Any, state_dict: dict[str, torch.Tensor], embeddings: list[str], disable_dynamic: bool = False):
    """Make a host CLIP of the given classes with the given weights."""
    parameters = sum(weight.numel() for weight in state_dict.values())
    options = newer(comfy.sd.CLIP, state_dict=[state_dict], disable_dynamic=disable_dynamic)
    clip = comfy.sd.CLIP(target, embedding_directory=embeddings, parameters=parameters, **options)
    if "state_dict" not in options:
        clip.load_sd(state_dict)
    return clip


def replaced_part(vae: Any, part: torch.nn.Module) -> None:
    """Let the host count a part that has taken another's place in its VAE; newer ones keep a note of each weight's type."""
    archive = getattr(comfy.model_management, "archive_model_dtypes", None)
    if archive is not None:
        archive(part)
    vae.size, vae.patcher.size = None, 0


def with_fast_norms(operations: Any) -> Any:
    """Return the host's layers, with a group normalisation that uses `t2v_models.unet.group_norm` where it is better."""
    if not hasattr(comfy.ops, "cast_bias_weight"):
        return operations
    lending = newer(comfy.ops.cast_bias_weight, offloadable=True)  # a host that lends weights wants them back

    class GroupNorm(operations.GroupNorm):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Normalise x, (n, c, *), over groups of channels; the shape stays."""
            normalise = better_than_torchs(x, self.num_groups)
            if normalise is None:
                return super().forward(x)
            weight, bias, *lent = comfy.ops.cast_bias_weight(self, x, **lending)
            out = normalise(x, self.num_groups, weight, bias, self.eps)
            if lent:
                comfy.ops.uncast_bias_weight(self, weight, bias, *lent)
            return out

    others = {name: getattr(operations, name) for name in ("Linear", "Conv2d", "Embedding", "LayerNorm")}
    return types.SimpleNamespace(GroupNorm=GroupNorm, **others)


def free_memory(patcher: Any, device: torch.device) -> int:
    """Return the bytes that are free for activations once this model is loaded."""
    if hasattr(patcher, "get_free_memory"):
        return patcher.get_free_memory(device)
    return comfy.model_management.get_free_memory(device)


def on_device(device: torch.device) -> contextlib.AbstractContextManager:
    """Make a device the current one for a `with` block: some kernels run on the current GPU only."""
    return getattr(comfy.model_management, "cuda_device_context", contextlib.nullcontext)(device)


def intermediate_dtype() -> torch.dtype:
    """Return the dtype of images and latents between nodes."""
    return getattr(comfy.model_management, "intermediate_dtype", lambda: torch.float32)()


def unpatched(patcher: Any) -> dict[str, torch.Tensor]:
    """Return the original weights, by name, of those that a loaded model's patches have changed in place."""
    return {name: getattr(saved, "weight", saved) for name, saved in getattr(patcher, "backup", {}).items()}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of torch or of the host says that memory has run out."""
    host_type = comfy.model_management.OOM_EXCEPTION
    if host_type is not Exception and isinstance(error, host_type):
        return True
    if hasattr(comfy.model_management, "is_oom") and comfy.model_management.is_oom(error):
        return True
    return errors.is_out_of_memory(error)
