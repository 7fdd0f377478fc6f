"""What T2VCrossFrameAttention with the anchor "first" costs per step, in a UNet of Stable Diffusion 1.5's size.

    python benchmarks/cross_frame.py

Runs in every ComfyUI that the tests find, on one thread. Steps with the patch and without it take turns, and the least
processor time of each is compared, since other work on the machine only ever adds to it.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

FRAMES, SIZE, TURNS = 2, 32, 4
"""Frames, twice with guidance; height and width of the latents; turns of both."""

UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1] * 9 + [0] * 3, "transformer_depth_middle": 1, "context_dim": 768,
    "use_linear_in_transformer": False, "adm_in_channels": None, "use_temporal_attention": False,
    "use_spatial_transformer": True, "legacy": False,
}  # fmt: skip


def check_overhead(host):
    """The least seconds of a step without the patch and with it; in_host.py calls this in a ComfyUI."""
    import comfy.model_patcher
    import comfy.supported_models
    import torch

    config = comfy.supported_models.SD15(UNET)
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, device=torch.device("cpu"))
    for weight in model.diffusion_model.parameters():
        torch.nn.init.trunc_normal_(weight, std=0.02)
    plain = comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))
    (patched,) = host.run("T2VCrossFrameAttention", plain, "first", 1.0, 0)
    texts = [[[torch.randn(1, 77, 768), {}]] for _ in range(2)]
    latent = {"samples": torch.zeros(FRAMES, 4, SIZE, SIZE)}

    def step(model):
        begun = time.process_time()
        host.run("KSampler", model, 1, 1, 7.5, "euler", "normal", *texts, latent, 1.0)
        return time.process_time() - begun

    step(plain)  # warm
    turns = [(step(plain), step(patched)) for _ in range(TURNS)]
    return [min(times) for times in zip(*turns, strict=True)]


def main() -> None:
    from benchmarks.in_hosts import results

    for version, (without, with_it) in results(__file__, "check_overhead"):
        share = 100 * (with_it / without - 1)
        print(f"ComfyUI {version}: {without:.2f} s a step, {with_it:.2f} s with the patch: {share:+.1f} %")


if __name__ == "__main__":
    main()
