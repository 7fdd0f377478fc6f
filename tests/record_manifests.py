"""Record names and shapes of the reference implementations' tensors, at full size on the meta device.

    python tests/record_manifests.py --modelscope …/unet_sd.py --videocrafter DIR --dynamicrafter DIR --t2v-turbo DIR

The references are their authors' repositories, and PyPI's diffusers and open_clip. None of their code is stored here,
only names and shapes of `state_dict()`. Writes tests/fixtures/manifests.json.gz: name of the model -> [[name, shape], …] in the
order of the reference's modules.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import importlib.util
import json
import sys
import types
from pathlib import Path

import torch

OUTPUT = Path(__file__).parent / "fixtures" / "manifests.json.gz"

LVDM = {
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "attention_resolutions": [4, 2, 1],
    "num_res_blocks": 2,
    "channel_mult": [1, 2, 4, 4],
    "num_head_channels": 64,
    "transformer_depth": 1,
    "context_dim": 1024,
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
VC1 = LVDM | {"temporal_conv": False, "use_relative_position": True}
DC = LVDM | {"in_channels": 8, "image_cross_attention": True, "fs_condition": True}
VAE = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}


class Missing(types.ModuleType):
    """Replaces a module that the references import and that is not needed here."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def import_from(root: Path, name: str) -> types.ModuleType:
    """Import a module of a repository; modules that it imports and that are not installed become `Missing`."""
    for loaded in [n for n in sys.modules if n.split(".")[0] in ("lvdm", "utils")]:
        del sys.modules[loaded]
    sys.path.insert(0, str(root))
    try:
        for _ in range(20):
            try:
                return importlib.import_module(name)
            except ModuleNotFoundError as error:
                sys.modules[error.name] = Missing(error.name)
        raise RuntimeError(f"{name} of {root} cannot be imported")
    finally:
        sys.path.remove(str(root))


def manifest(module: torch.nn.Module) -> list:
    """List the [name, shape] of every tensor, in the module's order."""
    return [[name, list(tensor.shape)] for name, tensor in module.state_dict().items()]


def modelscope(path: Path) -> dict[str, list]:
    spec = importlib.util.spec_from_file_location("unet_sd", path)
    unet_sd = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(unet_sd)
    model = unet_sd.UNetSD(4, 320, 768, 1024, 4, [1, 2, 4, 4], 8, 64, 2, [1, 0.5, 0.25], temporal_attention=True)
    return {"modelscope": manifest(model)}


def diffusers() -> dict[str, list]:
    model = importlib.import_module("diffusers").UNet3DConditionModel
    return {"diffusers": manifest(model()), "diffusers-turbo": manifest(model(time_cond_proj_dim=256))}


def videocrafter(root: Path) -> dict[str, list]:
    model = import_from(root, "lvdm.modules.networks.openaimodel3d").UNetModel
    recorded = {
        "videocrafter2": manifest(model(**LVDM, fps_cond=True)),
        "videocrafter1-512": manifest(model(**VC1)),
        "videocrafter1-1024": manifest(model(**VC1, fps_cond=True)),
        "videocrafter1-i2v": manifest(model(**LVDM, fps_cond=True, use_image_attention=True)),
    }
    blocks = import_from(root, "lvdm.modules.networks.ae_modules")
    vae = torch.nn.Module()
    vae.encoder, vae.decoder = blocks.Encoder(**VAE), blocks.Decoder(**VAE)
    vae.quant_conv, vae.post_quant_conv = torch.nn.Conv2d(8, 8, 1), torch.nn.Conv2d(4, 4, 1)
    return recorded | {"vae": manifest(vae)}


def dynamicrafter(root: Path) -> dict[str, list]:
    model = import_from(root, "lvdm.modules.networks.openaimodel3d").UNetModel
    return {
        "dynamicrafter-256": manifest(model(**DC, image_cross_attention_scale_learnable=True)),
        "dynamicrafter-512": manifest(model(**DC)),
    }


def t2v_turbo(root: Path) -> dict[str, list]:
    model = import_from(root, "lvdm.modules.networks.openaimodel3d").UNetModel
    turbo = LVDM | {"fps_cond": True, "time_cond_proj_dim": 256}
    return {
        "t2v-turbo-vc2": manifest(model(**turbo)),
        "t2v-turbo-v2": manifest(model(**turbo, motion_cond_proj_dim=256)),
    }


def openclip() -> dict[str, list]:
    text = {"context_length": 77, "vocab_size": 49408, "width": 1024, "heads": 16, "layers": 24}
    vision = {"image_size": 224, "layers": 32, "width": 1280, "head_width": 80, "patch_size": 14}
    return {"openclip": manifest(importlib.import_module("open_clip").CLIP(1024, vision, text))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modelscope", type=Path, required=True)
    for name in ("videocrafter", "dynamicrafter", "t2v-turbo"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    with torch.device("meta"):
        recorded = modelscope(args.modelscope) | diffusers() | videocrafter(args.videocrafter)
        recorded |= dynamicrafter(args.dynamicrafter) | t2v_turbo(args.t2v_turbo) | openclip()
    for name, entries in recorded.items():
        print(f"{name}: {len(entries)} tensors")
    OUTPUT.parent.mkdir(exist_ok=True)
    with OUTPUT.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as file:
        file.write(json.dumps(recorded, separators=(",", ":")).encode())


if __name__ == "__main__":
    main()
