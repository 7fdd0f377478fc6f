"""Live previews: a sheet of frames in the colours of the VAE. Run inside a ComfyUI by in_host.py."""

import numpy
import torch
from PIL import Image


def check_previews_are_a_sheet_of_frames(host):
    preview = host.module("nodes.host.sampling.preview")
    model, _, _ = host.tiny()
    for shape, size in (((1, 4, 4, 8, 8), (512, 512)), ((5, 4, 8, 8), None), ((1, 4, 30, 8, 12), None)):
        image = preview.sheet(torch.randn(shape), model.model.latent_format)
        assert size is None or image.size == size, image.size
        assert max(image.size) <= 512


def check_previews_show_the_colours_of_the_vae(host):
    preview = host.module("nodes.host.sampling.preview")
    model, _, vae = host.run("T2VModelLoader", "built-in", "default")[:3]
    latent_format = model.model.latent_format
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    disk = ((x - 24).square() + (y - 36).square() < 12**2)[..., None]
    for colour, ground in (((1.0, 0.1, 0.1), (0.0, 0.0, 0.0)), ((1.0, 0.9, 0.1), (0.1, 0.2, 0.9))):
        picture = torch.where(disk, torch.tensor(colour), torch.tensor(ground))
        latents = vae.encode(picture[None]) * latent_format.scale_factor
        shown = preview.sheet(latents, latent_format).resize((8, 8), Image.Resampling.BOX)
        shown = torch.as_tensor(numpy.asarray(shown) / 255.0)
        wanted = picture.reshape(8, 8, 8, 8, 3).mean((1, 3))
        assert (shown - wanted).square().mean().sqrt() < 0.1, (shown - wanted).square().mean().sqrt()


def check_a_model_that_the_host_makes_anew_keeps_its_colours(host):
    model = host.run("T2VModelLoader", "built-in", "default")[0]
    make, args = model.cached_patcher_init
    again = make(*args, disable_dynamic=True)
    assert again.model.latent_format.latent_rgb_factors == model.model.latent_format.latent_rgb_factors
    assert again.model.latent_format.latent_rgb_factors != host.tiny()[0].model.latent_format.latent_rgb_factors
    assert again.cached_patcher_init == model.cached_patcher_init
