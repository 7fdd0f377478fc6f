"""A clip from a picture without a model made for pictures: what every sampler node keeps of it. Run by in_host.py."""

import dataclasses

import torch


def loaded(host, *, clean, name="tiny-v"):
    """A model of random weights, as if trained with a timestep for every frame or not, its texts and its VAE."""
    model, clip, vae = host.run("T2VModelLoader", name, "default")[:3]
    model.model.family = dataclasses.replace(model.model.family, frame_timesteps=clean)
    return model, host.conds(clip, "a red circle", ""), vae


def prepared(host, model, conds, vae, **changes):
    """T2VImageToVideo over a picture of noise."""
    picture = torch.rand(1, 32, 32, 3, generator=torch.Generator().manual_seed(5))
    call = {"image": picture, "frames": 6, "width": 32, "height": 32, "fit": "crop", "method": "model's own"}
    values = {"motion": 0.0, "image_strength": 1.0, "image_cfg": 0.0}
    given = {"model": model, "positive": conds[0], "negative": conds[1], "vae": vae, **call, **values, **changes}
    return host.run("T2VImageToVideo", **given)


def sampled(host, node, model, positive, negative, latent, sampler="euler", steps=4, cfg=3.0):
    """A latent by one of the three sampler nodes."""
    if node == "T2VVideoSampler":
        call = (1, steps, cfg, sampler, "simple", 1.0)
        return host.run(node, model, positive, negative, latent, *call)[0]["samples"]
    if node == "KSampler":
        call = (1, steps, cfg, sampler, "simple", positive, negative, latent, 1.0)
        return host.run(node, model, *call)[0]["samples"]
    (sigmas,) = host.run("BasicScheduler", model, "simple", steps, 1.0)
    (guider,) = host.run("CFGGuider", model, positive, negative, cfg)
    (noise,), (chosen,) = host.run("RandomNoise", 1), host.run("KSamplerSelect", sampler)
    return host.run(node, noise, guider, chosen, sigmas, latent)[0]["samples"]


SAMPLERS = ("T2VVideoSampler", "KSampler", "SamplerCustomAdvanced")


def check_every_sampler_node_keeps_held_frames_bit_for_bit_and_agrees_with_the_others(host):
    end = torch.rand(1, 32, 32, 3, generator=torch.Generator().manual_seed(6))
    for clean in (True, False):
        method = "model's own" if clean else "hold the picture"
        model, conds, vae = loaded(host, clean=clean)
        ready = prepared(host, model, conds, vae, method=method, end_image=end, resample=1)
        wanted = ready[3]["samples"]
        made = [sampled(host, node, *ready) for node in SAMPLERS]
        for each in made:
            assert torch.equal(each[:, :, [0, 5]], wanted[:, :, [0, 5]]), clean
            assert host.difference(each, made[0]) < 1e-4, clean
        assert wanted[:, :, [0, 5]].any()
        assert not wanted[:, :, 1:5].any()


def library_run(host, model, positive, noise, clip, known, **how):
    """The library's `sample_between` with a host's model, without guidance."""
    keyframes, film = host.module("t2v_models.sampling.keyframes"), host.module("nodes.host.film")
    pipeline = film.HostPipeline(model, None)
    pipeline.unet.room = tuple(noise.shape)
    timesteps, schedule = pipeline.schedule.timesteps(4), pipeline.schedule
    conditions = pipeline.conditions(None, 1.0)

    def predict(x, times):
        return pipeline.predict(x, times, positive[0][0], conditions)

    return keyframes.sample_between(predict, noise, known, clip, timesteps, schedule, **how)


def check_held_frames_and_repeated_steps_are_those_of_the_library(host):
    import comfy.sample

    for clean, resample in ((True, 0), (False, 0), (False, 2)):
        model, conds, vae = loaded(host, clean=clean)
        method = "model's own" if clean else "hold the picture"
        ready = prepared(host, model, conds, vae, method=method, resample=resample)
        made = host.run("T2VVideoSampler", *ready, 1, 4, 1.0, "euler", "diffusers", 1.0)[0]["samples"]
        generator = torch.Generator().manual_seed(1)
        inner, known = model.model, torch.arange(6) == 0
        clip = inner.process_latent_in(ready[3]["samples"])
        noise = comfy.sample.prepare_noise(clip, 1)
        torch.randn(noise.shape, generator=generator)
        how = {"known_clean": clean, "resample": resample, "generator": generator}
        wanted = inner.process_latent_out(library_run(host, model, conds[0], noise, clip, known, **how))
        assert host.difference(made, wanted) < 1e-3, (clean, resample, host.difference(made, wanted))


def check_a_model_with_frame_timesteps_sees_held_frames_clean_in_every_layout(host):
    import comfy.patcher_extension

    model, conds, vae = loaded(host, clean=True)
    ready, positive, negative, latent = prepared(host, model, conds, vae)
    inner = model.model
    clean = inner.process_latent_in(latent["samples"])[:, :, 0]
    seen = []

    def spy(executor, x, timesteps, *args, **kwargs):
        first = x[:, :, 0] if x.ndim == 5 else x[::6]
        times = timesteps[:, 0] if x.ndim == 5 else timesteps[::6]
        rest = timesteps[:, 1:] if x.ndim == 5 else timesteps.view(-1, 6)[:, 1:]
        seen.append((float((first - clean).abs().max()), times.tolist(), float(rest.min())))
        return executor(x, timesteps, *args, **kwargs)

    ready.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "spy", spy)
    clips = sampled(host, "T2VVideoSampler", ready, positive, negative, latent)
    assert len(seen) == 4
    (frames,) = host.run("T2VLatentLayout", latent, "frames", 0)
    flat = sampled(host, "T2VVideoSampler", ready, positive, negative, frames)
    assert len(seen) == 8
    assert all(far < 1e-4 and not any(times) and least > 0 for far, times, least in seen), seen
    assert torch.equal(flat[0], clips[0, :, 0])


def check_held_frames_stay_with_windows_and_with_free_init(host):
    model, conds, vae = loaded(host, clean=True)
    for node, values in (("T2VWindows", (4, 2, "pyramid", False)), ("T2VFreeInit", (2, "butterworth", 0.25, 0.25, 4))):
        (patched,) = host.run(node, model, *values)
        ready = prepared(host, patched, conds, vae)
        made = sampled(host, "T2VVideoSampler", *ready)
        assert torch.equal(made[:, :, 0], ready[3]["samples"][:, :, 0]), node
        assert made.isfinite().all(), node
    whole = prepared(host, host.run("T2VWindows", model, 6, 2, "pyramid", False)[0], conds, vae)
    plain = prepared(host, model, conds, vae)
    assert torch.equal(sampled(host, "KSampler", *whole), sampled(host, "KSampler", *plain))


def check_frame_init_begins_with_the_noise_of_the_library(host):
    import comfy.patcher_extension

    model, conds, vae = loaded(host, clean=False)
    frame_init = host.module("t2v_models.sampling.frame_init").frame_init_noise
    for camera in ("none", "pan right"):
        ready, positive, negative, latent = prepared(host, model, conds, vae, method="frame init", camera=camera)
        given = []

        def spy(executor, noise, *args, given=given, **kwargs):
            given.append(noise)
            return executor(noise, *args, **kwargs)

        ready.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, "spy", spy)
        for node in SAMPLERS:
            sampled(host, node, ready, positive, negative, latent)
        stills = next(each.__self__ for each in ready.wrappers["outer_sample"]["t2v_frame_init"]).still
        assert stills.shape == latent["samples"].shape
        assert torch.equal(stills[:, :, 0], stills[:, :, -1]) == (camera == "none")
        noise = torch.randn(latent["samples"].shape, generator=torch.Generator().manual_seed(1))
        schedule = host.module("nodes.host.film").HostPipeline(model, None).schedule
        wanted = frame_init(noise, model.model.process_latent_in(stills), schedule)
        for each in given:
            assert host.difference(each.cpu(), wanted) < 1e-3
        assert host.difference(noise, wanted) > 1e-2


def check_repeat_and_slide_is_the_library_s_in_every_sampler_node(host):
    model, conds, vae = loaded(host, clean=False)
    ready = prepared(host, model, conds, vae, method="repeat and slide", frames=4, known=14, resample=1)
    made = [sampled(host, node, *ready, cfg=1.0, steps=2) for node in SAMPLERS]
    first = ready[3]["samples"][:, :, 0]
    assert all(torch.equal(each[:, :, 0], first) and host.difference(each, made[0]) < 1e-4 for each in made)
    inner, slide = model.model, host.module("t2v_models.sampling.repeat_and_slide")
    pipeline, codec = host.module("nodes.host.film").HostPipeline(model, None), host.module("nodes.host.decoding")
    pipeline.unet.room = (1, 4, 16, 4, 4)
    conditions = pipeline.conditions(None, 1.0)
    sigmas = host.run("BasicScheduler", model, "simple", 2, 1.0)[0]

    def refresh(latents):
        frames = codec.decode(vae, {"samples": inner.process_latent_out(latents)})
        return inner.process_latent_in(codec.encode(vae, frames))

    wanted = slide.repeat_and_slide(
        lambda x, times: pipeline.predict(x, times, conds[0][0][0], conditions),
        inner.process_latent_in(ready[3]["samples"])[:, :, :1],
        4,
        inner.model_sampling.timestep(sigmas[:-1]).round().long(),
        pipeline.schedule,
        window=16,
        known=14,
        resample=1,
        generator=torch.Generator().manual_seed(1),
        refresh=refresh,
    )
    assert host.difference(made[0], inner.process_latent_out(wanted)) < 1e-3


def check_what_does_not_belong_together_is_named(host):
    model, conds, vae = loaded(host, clean=True)
    ready, *texts, latent = prepared(host, model, conds, vae)
    (empty,) = host.run("T2VEmptyLatent", 32, 32, 6, 1)
    other = {"samples": latent["samples"][:, :, :5], "noise_mask": latent["noise_mask"][:5]}
    for given, said in ((empty, "without a noise mask"), (other, "holds 1 of 6 frames and the latent has 5")):
        assert said in host.refusal(lambda given=given: sampled(host, "T2VVideoSampler", ready, *texts, given))
    text_model, _, _ = loaded(host, clean=False)
    noisy, *_, empty = prepared(host, text_model, conds, vae, method="frame init")
    said = host.refusal(lambda: sampled(host, "KSampler", noisy, *texts, {"samples": latent["samples"]}))
    assert "begins with noise alone" in said
    (longer,) = host.run("T2VEmptyLatent", 32, 32, 7, 1)
    assert "7 frames of 32x32" in host.refusal(lambda: sampled(host, "KSampler", noisy, *texts, longer))
    sliding, *_ = prepared(host, text_model, conds, vae, method="repeat and slide")
    assert "begins with a picture" in host.refusal(lambda: sampled(host, "KSampler", sliding, *texts, longer))
    end = {"end_image": torch.rand(1, 32, 32, 3)}
    for method in ("frame init", "repeat and slide"):
        refused = host.refusal(lambda method=method: prepared(host, text_model, conds, vae, method=method, **end))
        assert "first picture only" in refused
    refused = host.refusal(lambda: prepared(host, text_model, conds, vae, method="repeat and slide", known=16))
    assert "1 to 15 are wanted" in refused
    refused = host.refusal(lambda: prepared(host, model, conds, vae, camera="zoom in"))
    assert 'only "frame init" has one' in refused


def check_at_strength_0_the_picture_is_as_if_it_were_not_there(host):
    model, conds, vae = loaded(host, clean=False)
    (empty,) = host.run("T2VEmptyLatent", 32, 32, 6, 1)
    text = sampled(host, "KSampler", model, *conds, empty)
    for method in ("frame init", "repeat and slide", "hold the picture"):
        ready = prepared(host, model, conds, vae, method=method, image_strength=0.0)
        assert torch.equal(sampled(host, "KSampler", *ready), text), method
    half, whole = (prepared(host, model, conds, vae, method="frame init", image_strength=s) for s in (0.5, 1.0))
    found = [host.difference(sampled(host, "KSampler", *ready), text) for ready in (half, whole)]
    assert 1e-3 < found[0] < found[1], found


def between(host, model, conds, vae, images, **changes):
    """T2VBetweenImages, every value in a list as the host hands them."""
    values = {
        "model": model, "positive": conds[0], "negative": conds[1], "vae": vae, "frames": 4, "width": 32, "height": 32,
        "fit": "crop", "closed_loop": False, "seed": 1, "steps": 2, "cfg": 1.0, "sampler_name": "euler",
        "scheduler": "simple", **changes,
    }  # fmt: skip
    listed = {name: [value] for name, value in values.items() if name != "positive"}
    positive = values["positive"] if isinstance(values["positive"], tuple) else [values["positive"]]
    return host.run("T2VBetweenImages", images=images, positive=list(positive), **listed)[0]["samples"]


def check_pictures_as_a_list_or_a_batch_are_passed_through_once_each(host):
    model, conds, vae = loaded(host, clean=True)
    pictures = torch.rand(3, 32, 32, 3, generator=torch.Generator().manual_seed(7))
    encode = host.module("nodes.host.decoding").encode
    stops = torch.cat([encode(vae, picture[None]) for picture in pictures], dim=2)
    batch = between(host, model, conds, vae, [pictures])
    assert batch.shape[2] == 2 * 3 + 1
    assert torch.equal(batch[:, :, [0, 3, 6]], stops.to(batch))
    assert torch.equal(batch, between(host, model, conds, vae, [pictures[:1], pictures[1:]]))
    loop = between(host, model, conds, vae, [pictures], closed_loop=True)
    assert loop.shape[2] == 3 * 3
    assert torch.equal(loop[:, :, :7], batch)
    pair = between(host, model, conds, vae, [pictures[1:]], seed=2)
    assert torch.equal(pair, batch[:, :, 3:])
    texts = (conds[0], conds[1])
    assert torch.equal(between(host, model, (texts, conds[1]), vae, [pictures])[:, :, :4], batch[:, :, :4])


def check_between_pictures_wrong_input_is_one_sentence(host):
    model, conds, vae = loaded(host, clean=True)
    pictures = torch.rand(3, 32, 32, 3)
    cases = {
        "at least 2 are wanted": lambda: between(host, model, conds, vae, [pictures[:1]]),
        "give one for all, or one for each": lambda: between(host, model, (tuple(conds[:1] * 3), conds[1]), vae, [pictures]),
        "has no end": lambda: between(host, model, conds, vae, [pictures], frames=1),
        "cannot end at a picture": lambda: between(host, host.tiny()[0], conds, vae, [pictures]),
    }  # fmt: skip
    for said, call in cases.items():
        assert said in host.refusal(call), host.refusal(call)
