"""What test_parity.py compares with the library's own, written to files. Run inside a ComfyUI by in_host.py."""

import image_models
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


def check_long_clips_for_the_comparison(host):
    model, clip, _ = host.tiny("tiny-v")
    positive, negative, _ = host.run("T2VStory", clip, host.story, 10, 8.0)
    (latent,) = host.run("T2VEmptyLatent", 32, 32, 10, 1)
    made = {}
    for name, node, arguments in (
        ("windows", "T2VWindows", (4, 2, "pyramid", False)),
        ("loop", "T2VWindows", (4, 2, "linear", True)),
        ("loop of one window", "T2VWindows", (10, 6, "pyramid", True)),
        ("free-noise", "T2VFreeNoise", (4, 2, "pyramid")),
    ):
        (patched,) = host.run(node, model, *arguments)
        settings = (1, 3, 4.0, "ddim", "diffusers", 1.0)
        (result,) = host.run("T2VVideoSampler", patched, positive, negative, latent, *settings)
        made[name] = result["samples"].clone()
    torch.save(made, host.base / "long.pt")


def check_predictions_of_the_image_model_for_the_comparison(host):
    import comfy.model_management

    model, clip = host.run("T2VModelLoader", "built-in image model", "fp32")[:2]
    comfy.model_management.load_models_gpu([model])
    x = torch.randn(3, 4, 8, 16, generator=torch.Generator().manual_seed(5))
    timesteps = torch.tensor([10, 500, 990])
    context = host.run("CLIPTextEncode", clip, "a red circle")[0][0][0].expand(3, -1, -1)
    out = model.model.diffusion_model(x, timesteps, context)
    sigmas = model.model.model_sampling.sigmas
    torch.save({"x": x, "timesteps": timesteps, "out": out, "sigmas": sigmas.clone()}, host.base / "image_model.pt")


PICTURES = (
    ("dynamicrafter-256", "windows", 1.0),
    ("dynamicrafter-256", "free-noise", 0.4),
    ("dynamicrafter-512-interp", "windows", 0.4),
    ("videocrafter1-i2v", "windows", 1.0),
)
"""Family, way of a long clip, and strength of the picture."""


def check_long_clips_of_pictures_for_the_comparison(host):
    made, ways = (
        {},
        {"windows": ("T2VWindows", 16, 8, "pyramid", False), "free-noise": ("T2VFreeNoise", 16, 8, "pyramid")},
    )
    for family, way, strength in PICTURES:
        last = image_models.picture("last") if family.endswith("interp") else None
        model, *others = image_models.animate(host, family, frames=24, end_image=last, image_strength=strength)
        node, *how = ways[way]
        (patched,) = host.run(node, model, *how)
        made[f"{family}/{way}/{strength}"] = image_models.sample(host, (patched, *others), 3, 4.0, "ddim")
    torch.save(made, host.base / "pictures.pt")


def check_films_of_every_method_have_every_frame(host):
    model, clip, _ = host.tiny("tiny-v")
    made = {}
    film = host.module("t2v_models.films.film")
    for method, looped in [*((each, False) for each in film.METHODS), *((each, True) for each in film.LOOPS)]:
        size = {"frames": 9, "width": 32, "height": 32, "fps": 8.0, "context_length": 4, "context_overlap": 2}
        how = {"fuse_method": "pyramid", "closed_loop": looped, "resume": False, "seed": 3, "steps": 2, "cfg": 4.0}
        latent, fps = host.run("T2VFilm", model, clip, host.story, method=method, **size, **how)
        assert latent["samples"].shape == (1, 4, 9, 4, 4)
        assert fps == 8.0
        made[f"{method} loop" if looped else method] = latent["samples"].clone()
    torch.save(made, host.base / "films.pt")
