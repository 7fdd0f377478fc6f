"""Record what the references outside PyPI compute: VideoCrafter's, DynamiCrafter's and T2V-Turbo's UNetModel.

    python -m tests.references.record videocrafter PATH
    python -m tests.references.record dynamicrafter PATH
    python -m tests.references.record t2v-turbo PATH

PATH is a checkout of AILab-CVC/VideoCrafter, Doubiiu/DynamiCrafter or Ji4chenLi/t2v-turbo. Nothing of them is kept but
outputs for seeded weights and inputs.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.abc
import importlib.machinery
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import torch

from .fixtures import Recording, lora_weight
from .seeding import fill, manifest, normal

MISSING = ("cv2", "omegaconf", "pytorch_lightning", "decord", "wandb", "open_clip", "kornia", "torchvision")
"""Modules that the references import, and that their UNets and samplers do not need."""

COMMON: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "attention_resolutions": [2, 1],
    "num_res_blocks": 1,
    "channel_mult": [1, 2, 2],
    "num_head_channels": 16,
    "transformer_depth": 1,
    "context_dim": 48,
    "use_linear": True,
    "use_checkpoint": False,
    "temporal_conv": True,
    "temporal_attention": True,
    "temporal_selfatt_only": True,
    "use_relative_position": False,
    "use_causal_attention": False,
    "temporal_length": 16,
    "addition_attention": True,
}
"""A small network with the flags that all published configurations share."""

RELATIVE = {"temporal_conv": False, "use_relative_position": True, "temporal_length": 2}
IMAGE = {"in_channels": 8, "fs_condition": True, "image_cross_attention": True, "default_fs": 24}

VIDEOCRAFTER = {
    "videocrafter2": {"fps_cond": True, "num_res_blocks": 2},
    "videocrafter1-512": RELATIVE,
    "videocrafter1-1024": {**RELATIVE, "fps_cond": True},
    "videocrafter1-i2v": {"fps_cond": True, "use_image_attention": True},
}
DYNAMICRAFTER = {
    "dynamicrafter-256": {**IMAGE, "image_cross_attention_scale_learnable": True},
    "dynamicrafter-512": IMAGE,
}
TURBO = {
    "t2v-turbo-lora": {"fps_cond": True, "time_cond_proj_dim": 256},
    "t2v-turbo-v2": {"fps_cond": True, "time_cond_proj_dim": 256, "motion_cond_proj_dim": 256},
}


class Stub(types.ModuleType):
    """A module whose every attribute is an empty class that takes any arguments, and whose submodules are such, too."""

    __path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda self, *args, **kwargs: None})


class StubFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a stub for every module that is missing here."""

    missing = MISSING

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(name, self) if name.split(".")[0] in self.missing else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Stub:
        return Stub(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to run."""


def unet_class(checkout: Path) -> type[torch.nn.Module]:
    """UNetModel of a checkout."""
    sys.meta_path.append(StubFinder())  # last: what is installed comes first
    sys.path.insert(0, str(checkout))
    return importlib.import_module("lvdm.modules.networks.openaimodel3d").UNetModel


def record(name: str, reference: type[torch.nn.Module], source: str, flags: dict[str, Any]) -> None:
    """One network, one call, one file."""
    arguments = COMMON | flags
    unet = fill(reference(**arguments))
    frames, text, images = 5, 77, 16
    inputs = {"x": [2, arguments["in_channels"], frames, 8, 4], "context": [2, text, arguments["context_dim"]]}
    values: dict[str, list[float]] = {"timesteps": [20, 981]}
    call: dict[str, Any] = {}
    if arguments.get("fps_cond") or arguments.get("fs_condition"):
        values["fps"] = [8, 24]
        call["fs" if "fs_condition" in arguments else "fps"] = torch.tensor(values["fps"])
    context = normal("context", tuple(inputs["context"]))
    if "use_image_attention" in arguments:
        inputs["image_context"] = [2, images, arguments["context_dim"]]
    if "image_cross_attention" in arguments:
        inputs["image_context"] = [2, frames, images, arguments["context_dim"]]
    if "image_context" in inputs:
        tokens = normal("image_context", tuple(inputs["image_context"]))
        context = torch.cat([context, tokens.reshape(2, -1, tokens.shape[-1])], dim=1)
    if "time_cond_proj_dim" in arguments:
        embed = importlib.import_module("utils.common_utils").guidance_scale_embedding
        values["guidance"] = [7.5, 5.25]
        call["timestep_cond"] = embed(torch.tensor(values["guidance"]), arguments["time_cond_proj_dim"])
        if "motion_cond_proj_dim" in arguments:
            values["motion_guidance"] = [0.05, 0.1]
            call["motion_cond"] = embed(torch.tensor(values["motion_guidance"]), arguments["motion_cond_proj_dim"])
    shapes = manifest(unet)
    lora: list[list[int]] = []
    if name.endswith("-lora"):
        del shapes["time_cond_proj.weight"]  # no checkpoint has it: the LoRA alone tells its value
        unet.time_cond_proj.weight.zero_()
        lora = merge_lora(unet)
    x = normal("x", tuple(inputs["x"]))
    output = unet(x, torch.tensor(values["timesteps"]), context=context, **call)
    path = Recording(source, arguments, shapes, inputs, values, lora, output).save(name)
    print(f"{path.name}: {len(shapes)} weights, output of deviation {output.std():.2f}, {path.stat().st_size} bytes")


def revision(checkout: Path) -> str:
    """The commit of a checkout, in short."""
    git = ["git", "-C", str(checkout), "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def merge_lora(unet: torch.nn.Module, rank: int = 4) -> list[list[int]]:
    """Merge a seeded LoRA as T2V-Turbo's own program does; the shapes of its file's tensors."""
    lora = importlib.import_module("utils.lora")
    handler = importlib.import_module("utils.lora_handler").LoraHandler(
        version="cloneofsimo", use_unet_lora=True, save_for_webui=True, unet_replace_modules=["UNetModel"]
    )
    classes = {"UNetModel"}
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "lora.pt"))
        shapes = []
        for _, _, layer in lora._find_modules(unet, classes, [torch.nn.Linear, torch.nn.Conv2d, torch.nn.Conv3d]):
            outer, inner, *kernel = layer.weight.shape
            r = min(rank, inner, outer)
            shapes += [[outer, r, *[1] * len(kernel)], [r, inner, *kernel]]
        torch.save([lora_weight(index, tuple(shape)) for index, shape in enumerate(shapes)], path)
        handler.add_lora_to_model(True, unet, handler.unet_replace_modules, lora_path=path, r=rank)
        lora.collapse_lora(unet, handler.unet_replace_modules)
        lora.monkeypatch_remove_lora(unet)
    unet.eval().requires_grad_(False)
    return shapes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    references = {"videocrafter": VIDEOCRAFTER, "dynamicrafter": DYNAMICRAFTER, "t2v-turbo": TURBO}
    parser.add_argument("reference", choices=references)
    parser.add_argument("path", type=Path, help="the checkout")
    arguments = parser.parse_args()
    reference = unet_class(arguments.path.resolve())
    torch.set_grad_enabled(False)
    for name, flags in references[arguments.reference].items():
        record(name, reference, f"{arguments.reference} UNetModel at {revision(arguments.path)}", flags)


if __name__ == "__main__":
    main()
