"""Latents for the comparison with the library's pipeline, written to files. Run inside a ComfyUI by in_host.py."""

import torch

RUNS = {
    "ddim": ("ddim", "diffusers"),
    "euler": ("euler", "diffusers"),
    "dpm++2m": ("dpmpp_2m", "diffusers"),
    "unipc": ("unipc (diffusers)", "diffusers"),
}
"""The pipeline's scheduler -> the node's sampler and scheduler."""


def check_latents_for_the_comparison(host):
    out = {}
    for name in ("tiny", "tiny-v", "built-in"):
        model, clip, vae = host.tiny(name)
        positive, negative = host.conds(clip, "a red circle moves right", "blue")
        (latent,) = host.run("T2VEmptyLatent", 64, 64, 4, 1)
        for scheduler, names in RUNS.items():
            (result,) = host.run("T2VVideoSampler", model, positive, negative, latent, 7, 8, 6.0, *names, 1.0)
            out[f"{name} {scheduler}"] = result["samples"].clone()
        rescaled = {"cfg_rescale": 0.7}
        (result,) = host.run(
            "T2VVideoSampler", model, positive, negative, latent, 7, 8, 9.0, "ddim", "diffusers", 1.0, **rescaled
        )
        out[f"{name} rescaled"] = result["samples"].clone()
        (images,) = host.run("T2VVAEDecodeFrames", result, vae)
        out[f"{name} frames"] = images.clone()
        images = torch.linspace(0, 1, 4 * 64 * 64 * 3).view(4, 64, 64, 3)
        (source,) = host.run("T2VVAEEncodeFrames", images, vae, 0, 0)
        out[f"{name} encoded"] = source["samples"].clone()
        (result,) = host.run("T2VVideoSampler", model, positive, negative, source, 7, 5, 6.0, "ddim", "diffusers", 0.5)
        out[f"{name} video"] = result["samples"].clone()
        out[f"{name} text"] = positive[0][0].clone()
    torch.save(out, host.base / "parity.pt")
    return sorted(out)
