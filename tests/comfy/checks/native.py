"""Core's nodes on our MODEL, CLIP, VAE and LATENT. Run inside a ComfyUI by in_host.py."""

import inspect

import torch
from clip_noise import noise_of_the_clip


def check_all_samplers_of_the_host_run(host):
    import comfy.samplers

    model, clip, _ = host.tiny()
    broken = {}
    for name in comfy.samplers.KSampler.SAMPLERS:
        try:
            out = host.ksample(model, clip, torch.zeros(1, 4, 2, 8, 8), name, steps=2)
            assert out.shape == (1, 4, 2, 8, 8)
        except Exception as error:
            broken[name] = f"{type(error).__name__}: {error}"
    assert not broken, broken


def check_our_sampler_runs_every_sampler_and_scheduler(host):
    sampling = host.module("nodes.host.sampling.run")
    model, clip, _ = host.tiny()
    conds = host.prompts(clip)
    latent = {"samples": torch.zeros(1, 4, 2, 8, 8)}
    samplers, schedulers = sampling.sampler_names(), sampling.scheduler_names()
    broken = {}
    for sampler, scheduler in [*((s, "normal") for s in samplers), *(("euler", s) for s in schedulers)]:
        try:
            out = host.run("T2VVideoSampler", model, *conds, latent, 3, 3, 5.0, sampler, scheduler, 1.0)[0]["samples"]
            assert out.shape == (1, 4, 2, 8, 8)
            assert out.isfinite().all()
        except Exception as error:
            broken[f"{sampler}, {scheduler}"] = f"{type(error).__name__}: {error}"
    assert not broken, broken


def check_vae_decode_gives_every_frame(host):
    model, clip, vae = host.tiny()
    out = {"samples": host.ksample(model, clip)}
    (images,) = host.run("VAEDecode", vae, out)
    assert images.shape == (4, 64, 64, 3)
    (ours,) = host.run("T2VVAEDecodeFrames", out, vae)
    assert torch.equal(images, ours)


def check_vae_decode_tiled_gives_every_frame(host):
    _, _, vae = host.run("T2VModelLoader", "built-in", "default")[:3]
    images = torch.zeros(2, 128, 128, 3)
    images[0, 40:90, 30:80, 0] = images[1, 20:70, 60:110, 2] = 1
    (latent,) = host.run("VAEEncode", vae, images)
    (whole,) = host.run("VAEDecode", vae, latent)
    (tiled,) = host.run("VAEDecodeTiled", vae, latent, 64, 32, 64, 8)
    assert tiled.shape == (2, 128, 128, 3)
    assert (tiled - whole).abs().mean() < 0.2 * (whole - whole.mean()).abs().mean(), "tiles see less around them"


def check_vae_encode_makes_one_clip(host):
    _, _, vae = host.tiny()
    images = torch.rand(5, 64, 64, 3)
    (latent,) = host.run("VAEEncode", vae, images)
    assert latent["samples"].shape == (1, 4, 5, 8, 8)
    (ours,) = host.run("T2VVAEEncodeFrames", images, vae, 0, 0)
    assert torch.equal(latent["samples"], ours["samples"])
    (tiled,) = host.run("VAEEncodeTiled", vae, images, 128, 32)
    assert tiled["samples"].shape == (1, 4, 5, 8, 8)


def check_video_to_video(host):
    model, clip, vae = host.tiny()
    (latent,) = host.run("VAEEncode", vae, torch.rand(4, 64, 64, 3))
    out = host.ksample(model, clip, latent["samples"], denoise=0.5)
    assert out.shape == (1, 4, 4, 8, 8)
    assert out.isfinite().all()


def check_sampler_custom_advanced(host):
    model, clip, _ = host.tiny()
    positive, negative = host.prompts(clip)
    (noise,) = host.run("RandomNoise", 3)
    (guider,) = host.run("CFGGuider", model, positive, negative, 5.0)
    (sampler,) = host.run("KSamplerSelect", "euler")
    (sigmas,) = host.run("BasicScheduler", model, "normal", 3, 1.0)
    latent = {"samples": torch.zeros(1, 4, 4, 8, 8)}
    out = host.run("SamplerCustomAdvanced", noise, guider, sampler, sigmas, latent)[0]["samples"]
    assert (out - host.ksample(model, clip)).abs().max() < 1e-5


def check_freeu_and_pag_change_the_result_and_leave_the_model_alone(host):
    model, clip, _ = host.tiny()
    plain = host.ksample(model, clip)
    for name, args in (
        ("FreeU", (1.3, 1.4, 0.9, 0.2)),
        ("FreeU_V2", (1.3, 1.4, 0.9, 0.2)),
        ("PerturbedAttentionGuidance", (3.0,)),
        ("HyperTile", (64, 2, 0, False)),
    ):
        (patched,) = host.run(name, model, *args)
        out = host.ksample(patched, clip)
        assert out.isfinite().all(), name
        assert name == "HyperTile" or (out - plain).abs().max() > 1e-3, name
    assert torch.equal(host.ksample(model, clip), plain)


def check_self_attention_guidance_is_refused_for_clips(host):
    model, clip, _ = host.tiny()
    (patched,) = host.run("SelfAttentionGuidance", model, 0.5, 2.0)
    said = host.refusal(lambda: host.ksample(patched, clip, torch.zeros(1, 4, 6, 8, 8)))
    assert "T2VLatentLayout" in said
    assert host.ksample(patched, clip, torch.zeros(6, 4, 8, 8)).isfinite().all()


def check_patches_treat_frames_as_images(host):
    model, clip, _ = host.tiny()
    shapes = []

    def patch(h, hsp, options):
        shapes.append((tuple(h.shape), options["block"], options["original_shape"]))
        return h, hsp

    patched = model.clone()
    patched.set_model_output_block_patch(patch)
    host.ksample(patched, clip, steps=1)
    rows = {shape[0] for shape, _, _ in shapes}
    assert rows <= {4, 8}, rows
    assert all(len(shape) == 4 for shape, _, _ in shapes)
    assert [block for _, block, _ in shapes][:2] == [("output", 0), ("output", 1)]


def check_easycache_skips_steps(host):
    import nodes

    if "EasyCache" not in nodes.NODE_CLASS_MAPPINGS:
        return "this host has no EasyCache"
    model, clip, _ = host.tiny()
    calls = []
    forward = type(model.model.diffusion_model)._forward

    def counted(self, *args, **kwargs):
        calls.append(1)
        return forward(self, *args, **kwargs)

    type(model.model.diffusion_model)._forward = counted
    try:
        (patched,) = host.run("EasyCache", model, 1e9, 0.15, 0.95, False)
        out = host.ksample(patched, clip, steps=10)
        cached = len(calls)
        calls.clear()
        host.ksample(model, clip, steps=10)
    finally:
        type(model.model.diffusion_model)._forward = forward
    assert out.isfinite().all()
    assert cached < len(calls), (cached, len(calls))
    return cached, len(calls)


def check_model_sampling_discrete_and_rescale_cfg(host):
    model, clip, _ = host.tiny()
    (patched,) = host.run("ModelSamplingDiscrete", model, "v_prediction", True)
    velocity = host.ksample(patched, clip)
    assert velocity.isfinite().all()
    assert (velocity - host.ksample(model, clip)).abs().max() > 1e-2
    (plain,) = host.run("ModelSamplingDiscrete", model, "eps", False)
    assert (host.ksample(plain, clip) - host.ksample(model, clip)).abs().max() < 1e-5
    (rescaled,) = host.run("RescaleCFG", model, 0.7)
    from_clip = host.ksample(rescaled, clip, cfg=9.0)
    assert (from_clip - host.ksample(model, clip, cfg=9.0)).abs().max() > 1e-3


def check_guidance_nodes_for_images_do_the_same_on_clips(host):
    model, clip, _ = host.tiny()
    with noise_of_the_clip():
        for name, args in (("RescaleCFG", (0.7,)), ("VideoLinearCFGGuidance", (1.0,))):
            (patched,) = host.run(name, model, *args)
            a = host.ksample(patched, clip, cfg=8.0)[0].transpose(0, 1)
            b = host.ksample(patched, clip, torch.zeros(4, 4, 8, 8), cfg=8.0)
            assert (a - b).abs().max() < 1e-4, (name, float((a - b).abs().max()))


def check_context_windows(host):
    model, clip, _ = host.tiny()
    cls = host.node("ContextWindowsManual")
    names = inspect.signature(cls.execute).parameters

    def windows(length, overlap, **more):
        settings = {
            "context_schedule": "standard_static",
            "context_stride": 1,
            "closed_loop": False,
            "fuse_method": "pyramid",
            "dim": 2,
            "freenoise": False,
            "causal_window_fix": False,
            **more,
        }
        settings = {key: value for key, value in settings.items() if key in names}
        return host.run("ContextWindowsManual", model, length, overlap, **settings)[0]

    samples = torch.zeros(1, 4, 12, 8, 8)
    plain = host.ksample(model, clip, samples)
    assert (host.ksample(windows(12, 4), clip, samples) - plain).abs().max() < 1e-5
    windowed = host.ksample(windows(6, 3), clip, samples)
    assert windowed.isfinite().all()
    assert (windowed - plain).abs().max() > 1e-3
    if "causal_window_fix" in names:
        frames = samples[0].transpose(0, 1)  # as a batch, which is what the node has as its default
        assert host.ksample(windows(6, 3, dim=0), clip, frames).isfinite().all()
        assert host.ksample(windows(6, 3, dim=0, causal_window_fix=True), clip, frames).isfinite().all()
        assert host.ksample(windows(6, 3, causal_window_fix=True), clip, samples).isfinite().all()


def check_a_noise_mask_keeps_what_it_covers(host):
    model, clip, vae = host.tiny()
    images = torch.rand(4, 64, 64, 3)
    (latent,) = host.run("VAEEncode", vae, images)
    mask = torch.zeros(1, 64, 64)
    mask[:, :, 32:] = 1
    (masked,) = host.run("SetLatentNoiseMask", latent, mask)
    conds = host.prompts(clip)
    args = (model, 3, 4, 5.0, "euler", "normal", *conds, masked, 1.0)
    out = host.run("KSampler", *args)[0]["samples"]
    kept = (out - latent["samples"])[..., :3].abs().max()
    assert kept < 1e-4, float(kept)
    assert (out - latent["samples"])[..., 5:].abs().max() > 1e-2
    ours = host.run("T2VVideoSampler", model, *conds, masked, 3, 4, 5.0, "ddim", "diffusers", 1.0)[0]["samples"]
    assert (ours - latent["samples"])[..., :3].abs().max() < 1e-4


def check_masks_of_repeated_clips_go_with_their_frames(host):
    import comfy.samplers

    model, clip, vae = host.tiny()
    (latent,) = host.run("T2VVAEEncodeFrames", images=torch.rand(4, 64, 64, 3), vae=vae, width=0, height=0)
    masks = torch.zeros(4, 64, 64)
    masks[1] = 1  # one frame is made anew
    (masked,) = host.run("SetLatentNoiseMask", latent, masks)
    (twice,) = host.run("RepeatLatentBatch", masked, 2)
    pictures = {**twice, "noise_mask": twice["noise_mask"][:, 0]}  # as other nodes give masks
    (after,) = host.run("SetLatentNoiseMask", host.run("RepeatLatentBatch", latent, 2)[0], masks)
    conds, how = host.conds(clip, "a", ""), (3, 4, 5.0, "ddim", "diffusers", 1.0)
    results = [
        host.run("T2VVideoSampler", model, *conds, each, *how)[0]["samples"] for each in (twice, pictures, after)
    ]
    kept_until_wrapped = "prepare_mask" in inspect.getsource(comfy.samplers.CFGGuider.outer_sample)
    for each in (after, twice, pictures) if kept_until_wrapped else (after,):  # newer hosts stretch the masks before
        results.append(host.ksample(model, None, each["samples"], conds=conds, noise_mask=each["noise_mask"]))
    for out in results:
        changed = (out - twice["samples"]).abs().amax(dim=(1, 3, 4))
        assert (changed[:, [0, 2, 3]] < 1e-4).all()
        assert (changed[:, 1] > 1e-2).all()


def check_steps_that_a_solver_cannot_take_are_refused(host):
    model, clip, _ = host.tiny()
    (latent,) = host.run("T2VEmptyLatent", 32, 32, 2, 1)
    args = (*host.conds(clip, "a", ""), latent, 3, 1000, 5.0, "dpmpp_2m", "diffusers", 1.0)
    said = host.refusal(lambda: host.run("T2VVideoSampler", model, *args))
    assert "cannot take 1000 steps" in said


def check_values_of_model_conditioning_reach_the_model(host):
    import dataclasses
    import types

    unet = host.module("t2v_models.unet")
    tiny, clip, _ = host.tiny()
    config = dataclasses.replace(tiny.model.diffusion_model.config, fps_embedding=True, guidance_dim=256)
    torch.manual_seed(0)
    weights = {name: torch.randn(each.shape) * 0.05 for name, each in unet.UNet3D(config).state_dict().items()}
    family = tiny.model.family
    info = types.SimpleNamespace(family=family, defaults=dataclasses.replace(family.defaults, fps_condition=8))
    model = host.module("nodes.host.models.model").load_model(weights, config, info, dict(tiny.model.scheduler))

    def out(fps=0.0, guidance=0.0):
        (conditioned,) = host.run("T2VModelConditioning", model, fps, guidance, 0.0)
        return host.ksample(conditioned, clip, cfg=1.0)

    plain = host.ksample(model, clip, cfg=1.0)
    assert torch.equal(out(), plain), "0 leaves the model's own"
    assert torch.equal(out(fps=8.0), plain), "its own value, said"
    assert not torch.equal(out(fps=24.0), plain)
    assert not torch.equal(out(guidance=3.5), plain)
    assert not torch.equal(out(guidance=3.5), out(guidance=7.5))
