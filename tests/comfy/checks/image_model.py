"""The built-in image model, made of core's own UNet, with core's own nodes. Run inside a ComfyUI by in_host.py."""

import torch

NAME = "built-in image model"
PROMPT, EMPTY = "a red circle on a blue background", ""


def parts(host):
    """MODEL, CLIP and VAE, loaded once."""
    if NAME not in host.cache:
        host.cache[NAME] = host.run("T2VModelLoader", NAME, "fp32")[:3]
    return host.cache[NAME]


def drawn(host, frames=2, steps=12, **options):
    """Pictures by core's KSampler, (n, h, w, 3)."""
    model, clip, vae = parts(host)
    conds = [host.run("CLIPTextEncode", clip, text)[0] for text in (PROMPT, EMPTY)]
    (latent,) = host.run("EmptyLatentImage", 64, 64, frames)
    samples = host.ksample(model, clip, conds=conds, cfg=3.0, steps=steps, **{**latent, **options})
    return samples, host.run("VAEDecode", vae, {"samples": samples})[0]


def check_it_is_listed_after_the_built_in_model(host):
    schema = host.node("T2VModelLoader").define_schema()
    assert schema.inputs[0].options[:2] == ["built-in", NAME]
    assert host.run("T2VModelLoader", NAME, "default")[3] is None


def check_core_draws_what_the_prompt_says(host):
    _, pictures = drawn(host)
    assert pictures.shape == (2, 64, 64, 3)
    red, _, blue = pictures.unbind(-1)
    circle, ground = (red > 0.7) & (blue < 0.4), (blue > 0.7) & (red < 0.4)
    assert (circle.float().mean((1, 2)) > 0.03).all(), circle.float().mean((1, 2))
    assert (ground.float().mean((1, 2)) > 0.6).all(), ground.float().mean((1, 2))


def check_pictures_go_to_latents_and_back(host):
    _, _, vae = parts(host)
    picture = torch.zeros(3, 64, 64, 3)
    picture[:] = torch.tensor([230, 25, 30]) / 255
    picture[:, 20:44, 20:44] = 0.98
    (latent,) = host.run("VAEEncode", vae, picture)
    assert latent["samples"].shape == (3, 4, 8, 8)
    (again,) = host.run("VAEDecode", vae, latent)
    assert float((again - picture).abs().mean()) < 0.05
    redrawn, _ = drawn(host, samples=latent["samples"], denoise=0.3)
    assert redrawn.shape == (3, 4, 8, 8)


def check_it_takes_core_merging_and_freeu(host):
    model, clip, _ = parts(host)
    plain, _ = drawn(host, steps=2)
    (merged,) = host.run("ModelMergeSimple", model, model, 0.5)
    host.cache["merged"] = (merged, clip)
    conds = [host.run("CLIPTextEncode", clip, text)[0] for text in (PROMPT, EMPTY)]
    (latent,) = host.run("EmptyLatentImage", 64, 64, 2)
    assert host.difference(host.ksample(merged, clip, conds=conds, cfg=3.0, steps=2, **latent), plain) < 1e-3
