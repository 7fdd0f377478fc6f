"""Record what ToonCrafter's autoencoder and I2VGen-XL's own network make of seeded weights and inputs.

    python -m tests.references.record_image_models tooncrafter PATH
    python -m tests.references.record_image_models vgen PATH

PATH is a checkout of ToonCrafter/ToonCrafter or ali-vilab/VGen. Nothing of them is kept but a part of the outputs.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .outputs import Outputs
from .record import MISSING, StubFinder, revision
from .seeding import fill, manifest, normal

AUTOENCODER: dict[str, Any] = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 64,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": [1, 2, 2, 2],
    "num_res_blocks": 1,
    "attn_resolutions": [],
    "dropout": 0.0,
}
FRAMES, PIXELS = 7, (16, 24)

VGEN: dict[str, Any] = {
    "in_dim": 4,
    "dim": 32,
    "y_dim": 1024,
    "context_dim": 1024,  # any other is wrong in its decoder
    "concat_dim": 4,
    "out_dim": 4,
    "dim_mult": [1, 2],
    "num_heads": 8,
    "head_dim": 16,
    "num_res_blocks": 1,
    "attn_scales": [1.0],
    "temporal_attention": True,
}


class Stubs(StubFinder):
    """Stubs for what VGen's networks import, too."""

    missing = (*MISSING, "rotary_embedding_torch", "fairscale")


def part(frames: Tensor) -> Tensor:
    """A few pixels of every frame, (t, 3, h, w) -> (t, 3, h/2, w/3)."""
    return frames[..., ::2, ::3].contiguous()


def attention_stub() -> types.ModuleType:
    """A module xformers whose attention is torch's: of (b, n, d), or with heads (b, n, h, d)."""

    def attend(q: Tensor, k: Tensor, v: Tensor, attn_bias: Any = None, op: Any = None, **_: Any) -> Tensor:
        if q.ndim == 4:
            return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
        return F.scaled_dot_product_attention(q, k, v)

    module, operations = types.ModuleType("xformers"), types.ModuleType("xformers.ops")
    module.__version__, module.ops, module.__path__ = "0.0.22", operations, []
    operations.memory_efficient_attention = attend
    sys.modules |= {"xformers": module, "xformers.ops": operations}
    return module


def tooncrafter(source: str) -> Outputs:
    """The autoencoder, and its decoder as scripts/evaluation/inference.py calls it."""
    model = nn.Module()
    model.encoder = importlib.import_module("lvdm.modules.networks.ae_modules").Encoder(**AUTOENCODER)
    model.decoder = importlib.import_module("lvdm.models.autoencoder_dualref").VideoDecoder(**AUTOENCODER)
    model.quant_conv, model.post_quant_conv = nn.Conv2d(8, 8, 1), nn.Conv2d(4, 4, 1)
    fill(model)
    ends = normal("ends", (2, 3, *PIXELS)) * 0.5
    z = normal("z", (FRAMES, 4, PIXELS[0] // 8, PIXELS[1] // 8))
    encoded, hidden = model.encoder(ends, return_hidden_states=True)
    references = [each.transpose(0, 1)[None] for each in hidden]  # b c 2 h w
    # AutoencoderKL.decode leaves post_quant_conv out where it is given more than latents, as it always is
    once = model.decoder(z, ref_context=references, timesteps=FRAMES)
    kept = [i for i in range(FRAMES) if i not in (1, FRAMES - 2)]
    middle = model.decoder(z[kept], ref_context=references, timesteps=FRAMES - 2)
    both = once.clone()
    half = FRAMES // 2
    both[half - 1 : half + 1] = middle[half - 2 : half]
    plain = model.decoder(z, timesteps=FRAMES)
    calls = {"once": once, "both": both, "plain": plain}
    shapes = manifest(model)
    moments = model.quant_conv(encoded)
    return Outputs(source, shapes, {name: part(frames) for name, frames in calls.items()} | {"moments": moments})


def vgen(source: str) -> Outputs:
    """The network, called as inference_i2vgen_entrance.py calls it."""
    for name in ("tools", "tools.modules", "tools.modules.unet"):  # without what their __init__ imports
        package = types.ModuleType(name)
        package.__path__ = [str(Path(sys.path[0], *name.split(".")))]
        sys.modules[name] = package
    Tensor.cuda = lambda self, *_: self  # it puts a tensor on a GPU whatever its inputs are on
    unet = fill(importlib.import_module("tools.modules.unet.unet_i2vgen").UNetSD_I2VGen(**VGEN))
    call = {
        "y": normal("context", (2, 7, 1024)),
        "image": normal("embedding", (2, 1, 1024)),
        "local_image": normal("image", (2, 4, 8, 6)),
        "fps": torch.tensor([16, 8]),
    }
    output = unet(normal("x", (2, 4, 3, 8, 6)), torch.tensor([20, 981]), **call)
    return Outputs(source, manifest(unet), {"output": output})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    references: dict[str, Callable[[str], Outputs]] = {"tooncrafter": tooncrafter, "vgen": vgen}
    parser.add_argument("reference", choices=references)
    parser.add_argument("path", type=Path, help="the checkout")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    attention_stub()
    sys.meta_path.append(Stubs())
    sys.path.insert(0, str(arguments.path.resolve()))
    recording = references[arguments.reference](f"{arguments.reference} at {revision(arguments.path)}")
    path = recording.save(arguments.reference)
    spread = {name: f"{float(value.std()):.2f}" for name, value in recording.calls.items()}
    print(f"{path.name}: {len(recording.shapes)} weights, {path.stat().st_size} bytes, deviations {spread}")


if __name__ == "__main__":
    main()
