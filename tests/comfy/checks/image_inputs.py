"""What T2VImageToVideo refuses and says of pictures. Run inside a ComfyUI by in_host.py."""

import image_models as small
import torch


def check_wrong_pictures_are_said_in_one_sentence(host):
    model, clip, vae = host.tiny()
    texts = host.conds(clip, "a red circle", "")
    given = dict(zip(("positive", "negative"), texts, strict=True))
    whole, narrow = small.load(host), small.vision_of_width(host, 64)
    rgba = torch.rand(1, 32, 64, 4)
    plain, (_, positive, negative, latent) = small.animate, small.animate(host)
    how = (1, 2, 4.0, "ddim", "diffusers", 1.0)
    other_size = {"samples": torch.zeros(1, 4, 8, 4, 8)}
    said = {
        "a text model": lambda: plain(host, model=model, vae=vae, **given),
        "an image model without picture": lambda: host.run("T2VVideoSampler", whole[0], *small.texts(), latent, *how),
        "and in KSampler": lambda: small.ksample(host, (whole[0], positive, small.texts()[1], latent)),
        "a picture for another model": lambda: host.run(
            "T2VVideoSampler", model, positive, negative, {"samples": torch.zeros(1, 4, 4, 8, 8)}, *how
        ),
        "a picture for another family": lambda: host.run(
            "T2VVideoSampler", small.load(host, "dynamicrafter-512-interp")[0], positive, negative, latent, *how
        ),
        "no picture": lambda: plain(host, image=0),
        "RGBA": lambda: plain(host, image=rgba),
        "a grey picture": lambda: plain(host, image=rgba[..., :1]),
        "a batch": lambda: plain(host, image=torch.rand(3, 32, 64, 3)),
        "1x1": lambda: plain(host, image=torch.rand(1, 1, 1, 3)),
        "20,000 pixels": lambda: plain(host, image=torch.rand(1, 16, 20_000, 3)),
        "NaN": lambda: plain(host, image=torch.full((1, 32, 64, 3), float("nan"))),
        "0 to 255": lambda: plain(host, image=torch.full((1, 32, 64, 3), 255.0)),
        "an end of a model without": lambda: plain(host, end_image=small.picture("last")),
        "a narrow CLIP_VISION": lambda: plain(host, clip_vision=narrow),
        "no CLIP_VISION": lambda: plain(host, clip_vision=None),
        "a text as CLIP_VISION": lambda: plain(host, clip_vision="ViT-H"),
        "no VAE": lambda: plain(host, vae=None),
        "a width of 100": lambda: plain(host, width=100),
        "a latent of other frames": lambda: host.run(
            "T2VVideoSampler", whole[0], positive, negative, other_size, *how
        ),
        "a film": lambda: host.run("T2VContinue", whole[0], positive, negative, latent, 2, 1, 2, 4.0),
        "no projector": lambda: plain(host, model=small.load(host, leave_out=("image_proj_model.",))[0]),
    }  # fmt: skip
    sentences = {name: host.refusal(call) for name, call in said.items()}
    for name, sentence in sentences.items():
        assert "\n" not in sentence, name
        assert sentence.endswith("."), (name, sentence)
    assert len(set(sentences.values())) == len(sentences) - 1  # a picture is missing in two samplers
    return sentences


def check_a_portrait_fills_a_landscape_and_the_log_says_what_is_lost(host):
    portrait = small.picture("first", 96, 64)
    with small.heard(host, "t2v_models.image.fit") as lines:
        latents = [small.animate(host, image=portrait, fit=how)[1][0][1]["concat_latent_image"] for how in
                   ("crop", "pad", "stretch")]  # fmt: skip
    assert len(lines) == 3, lines
    assert all("64x96" in line and "%" in line for line in lines), lines
    assert small.differ(latents[0], latents[1]) > 1e-3
    assert small.differ(latents[0], latents[2]) > 1e-3


def check_motion_is_the_models_condition(host):
    plain = small.sample(host, small.animate(host))
    assert torch.equal(small.sample(host, small.animate(host, motion=24.0)), plain)
    assert small.differ(small.sample(host, small.animate(host, motion=15.0)), plain) > 1e-4
