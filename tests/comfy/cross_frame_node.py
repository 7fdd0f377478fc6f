"""T2VCrossFrameAttention on small image models, and KSampler after it, for the checks of several files."""

FRAMES = 4
ANCHORS = {
    "first": lambda k, frames: [0],
    "first + previous": lambda k, frames: [0, max(k - 1, 0)],
    "first + previous + next": lambda k, frames: [0, max(k - 1, 0), min(k + 1, frames - 1)],
    "all": lambda k, frames: range(frames),
}
"""For each anchor with a fixed rule: a frame's number and the number of frames -> the frames that it looks at."""


def model(host, name="sd15"):
    import small_image_unets

    if name not in host.cache:
        host.cache[name] = getattr(small_image_unets, name)()
    return host.cache[name]


def patched(host, model, anchor="first", strength=1.0, seed=0, **given):
    return host.run("T2VCrossFrameAttention", model, anchor, strength, seed, **given)[0]


def sample(host, model, conds=None, frames=FRAMES, cfg=5.0, sampler="euler", steps=2, seed=3, **latent):
    """Latents of KSampler, (frames, 4, 8, 8)."""
    import small_image_unets
    import torch

    positive, negative = conds or small_image_unets.texts()
    latent = {"samples": torch.zeros(frames, *small_image_unets.LATENT), **latent}
    return host.run("KSampler", model, seed, steps, cfg, sampler, "normal", positive, negative, latent, 1.0)[0][
        "samples"
    ]
