"""Clips and frames, batches and guidance: one result however it is computed. Run inside a ComfyUI by in_host.py."""

import torch
from clip_noise import noise_of_the_clip


def differ(a, b):
    """Largest difference in units of the values' size, at least 1."""
    return float((a - b).abs().max() / b.abs().max().clamp(min=1))


def ksample(host, model, positive, negative, samples, cfg=5.0, seed=3, steps=3, **latent):
    latent = {"samples": samples, **latent}
    args = (model, seed, steps, cfg, "euler", "normal", positive, negative, latent, 1.0)
    return host.run("KSampler", *args)[0]["samples"]


def both(host, model, positive, negative, **options):
    with noise_of_the_clip():
        clip = ksample(host, model, positive, negative, torch.zeros(1, 4, 4, 8, 8), **options)
        frames = ksample(host, model, positive, negative, torch.zeros(4, 4, 8, 8), **options)
    return clip[0].transpose(0, 1), frames


def check_frames_as_a_batch_give_the_same_bits_as_a_clip(host):
    model, clip, _ = host.tiny()
    positive, negative = host.conds(clip, "a red circle", "")
    for cfg in (5.0, 1.0):
        a, b = both(host, model, positive, negative, cfg=cfg)
        assert torch.equal(a, b), float((a - b).abs().max())


def check_prompt_and_negative_prompt_together_or_apart_agree(host):
    model, clip, _ = host.tiny()
    positive, negative = host.conds(clip, "a red circle", "a longer and quite different text")
    joint = ksample(host, model, positive, negative, torch.zeros(1, 4, 4, 8, 8))
    calls = []
    forward = type(model.model.diffusion_model)._forward

    def counted(self, x, *args, **kwargs):
        calls.append(x.shape[0])
        return forward(self, x, *args, **kwargs)

    needed = type(model.model).memory_required
    type(model.model.diffusion_model)._forward = counted
    type(model.model).memory_required = lambda self, shape, *a, **k: 1e15 if shape[0] > 1 else 1.0
    try:
        apart = ksample(host, model, positive, negative, torch.zeros(1, 4, 4, 8, 8))
    finally:
        type(model.model).memory_required = needed
        type(model.model.diffusion_model)._forward = forward
    assert calls == [1] * 6, calls
    assert differ(joint, apart) < 1e-4, differ(joint, apart)


def check_a_batch_of_two_equals_two_runs(host):
    import comfy.sample

    model, clip, _ = host.tiny()
    positive, negative = host.conds(clip, "a red circle", "")
    noise = comfy.sample.prepare_noise(torch.zeros(2, 4, 4, 8, 8), 5)
    import comfy.samplers

    def run(noise):
        sigmas = comfy.samplers.KSampler(model, 3, model.load_device, "euler", "normal", 1.0).sigmas
        sampler = comfy.samplers.sampler_object("euler")
        return comfy.sample.sample_custom(
            model, noise, 5.0, sampler, sigmas, positive, negative, torch.zeros_like(noise), seed=1
        )

    two = run(noise)
    assert differ(two[:1], run(noise[:1])) < 1e-4
    assert differ(two[1:], run(noise[1:])) < 1e-4


def check_areas_work_on_clips_as_on_frames(host):
    model, clip, _ = host.tiny()
    positive, negative = host.conds(clip, "a red circle", "")
    (other,) = host.conds(clip, "a blue square")
    (area,) = host.run("ConditioningSetArea", other, 32, 32, 16, 16, 1.0)
    (combined,) = host.run("ConditioningCombine", positive, area)
    a, b = both(host, model, combined, negative)
    plain, _ = both(host, model, positive, negative)
    assert differ(a, b) < 1e-4, differ(a, b)
    assert (a - plain).abs().max() > 1e-3


def check_prompts_of_different_length_go_together(host):
    model, clip, _ = host.tiny()
    positive, negative = host.conds(clip, "red circle " * 40, "")
    assert positive[0][0].shape[1] > 77
    assert positive[0][0].shape[1] % 77 == 0
    out = ksample(host, model, positive, negative, torch.zeros(1, 4, 2, 8, 8))
    assert out.isfinite().all()


def check_one_frame_is_a_still(host):
    model, clip, vae = host.tiny()
    positive, negative = host.conds(clip, "a red circle", "")
    (latent,) = host.run("T2VEmptyLatent", 64, 64, 1, 2)
    (out,) = host.run("T2VVideoSampler", model, positive, negative, latent, 1, 2, 4.0, "ddim", "diffusers", 1.0)
    (images,) = host.run("T2VVAEDecodeFrames", out, vae)
    assert images.shape == (2, 64, 64, 3)


def check_odd_sizes_work(host):
    model, clip, _ = host.tiny()
    positive, negative = host.conds(clip, "a red circle", "")
    out = ksample(host, model, positive, negative, torch.zeros(1, 4, 3, 5, 7))
    assert out.shape == (1, 4, 3, 5, 7)


def check_zero_sizes_are_the_models_own(host):
    model, _, _ = host.tiny()
    (latent,) = host.run("T2VEmptyLatent", 0, 0, 0, 1, model)
    own = model.model.defaults
    assert latent["samples"].shape == (1, 4, own.frames, own.height // 8, own.width // 8)


def check_the_layout_node_turns_clips_to_frames_and_back(host):
    samples = torch.randn(2, 4, 3, 8, 8)
    mask = torch.rand(2, 1, 3, 8, 8)
    (frames,) = host.run("T2VLatentLayout", {"samples": samples, "noise_mask": mask}, "frames", 0)
    assert frames["samples"].shape == (6, 4, 8, 8)
    (flipped,) = host.run("LatentFlip", frames, "x-axis: vertically")
    (clips,) = host.run("T2VLatentLayout", flipped, "clips", 3)
    assert torch.equal(clips["samples"], samples.flip(3))
    assert torch.equal(clips["noise_mask"], mask)


def check_a_sampler_goes_on_where_another_ended(host):
    model, clip, _ = host.tiny()
    positive, negative = host.conds(clip, "a red circle", "")
    (latent,) = host.run("T2VEmptyLatent", 64, 64, 4, 1)

    def run(latent, **options):
        args = (model, positive, negative, latent, 1, 6, 4.0, "ddim", "diffusers", 1.0)
        return host.run("T2VVideoSampler", *args, **options)[0]

    whole = run(latent)["samples"]
    half = run(latent, end_at_step=3, return_with_leftover_noise=True)
    rest = run(half, start_at_step=3, add_noise=False)["samples"]
    assert differ(whole, rest) < 1e-4, differ(whole, rest)
