"""Models that take pictures: what T2VImageToVideo gives to the samplers. Run inside a ComfyUI by in_host.py.

The models are those of which runs of the originals were recorded: see tests/references/image_runs.py.
"""

import image_models as small
import torch

RUNS = [
    ("videocrafter1-i2v", 10, 0.0, 12.0, 0.0, None),
    ("videocrafter1-i2v", 10, 1.0, 12.0, 0.0, None),
    ("dynamicrafter-256", 10, 1.0, 7.5, 0.7, None),
    ("dynamicrafter-256", 10, 0.0, 7.5, 0.0, None),
    ("dynamicrafter-256", 5, 0.0, 7.5, 0.0, 3.0),
    ("dynamicrafter-512", 10, 0.0, 7.5, 0.7, None),
    ("dynamicrafter-512", 9, 1.0, 7.5, 0.7, None),
    ("dynamicrafter-512", 5, 1.0, 7.5, 0.7, 3.0),
    ("dynamicrafter-512", 5, 1.0, 7.5, 0.7, 7.5),
    ("dynamicrafter-1024", 10, 1.0, 7.5, 0.7, None),
    ("dynamicrafter-1024", 5, 0.0, 7.5, 0.0, None),
    ("dynamicrafter-512-interp", 10, 1.0, 7.5, 0.7, None),
    ("dynamicrafter-512-loop", 10, 0.0, 7.5, 0.7, None),
]
"""Family, steps, eta, cfg, rescale and the picture's own cfg."""

SMOOTH = "dynamicrafter-256"
"""A family whose first step does not multiply rounding: that of the others begins at a sigma of 4518."""

CONDITIONS = {
    "videocrafter1-i2v": 8, "dynamicrafter-256": 3, "dynamicrafter-512": 24, "dynamicrafter-1024": 10,
    "dynamicrafter-512-interp": 10, "dynamicrafter-512-loop": 5,
}  # fmt: skip
"""The frame rate or stride of the recorded runs."""


def check_a_picture_becomes_the_latents_of_the_originals(host):
    """From a picture to latents, as VideoCrafter1's and DynamiCrafter's own code computes them."""
    runs, worst = small.references().image_runs, {}
    for family, steps, eta, cfg, rescale, image_cfg in RUNS:
        interp = family.endswith("interp")
        prepared = small.animate(
            host,
            family,
            motion=float(CONDITIONS[family]),
            image_cfg=image_cfg or 0.0,
            end_image=small.picture("last") if interp else None,
            positive=small.texts(runs.NETWORKS[family])[0],
            negative=small.texts(runs.NETWORKS[family])[1],
        )
        found = 0.18215 * small.sample(host, prepared, steps, cfg, eta=eta, cfg_rescale=rescale)
        if family.endswith("loop"):
            found = found[:, :, :-1]
        run = runs.ImageRun(family, steps, eta, cfg, rescale, image_cfg)
        wanted = small.recording(runs.NETWORKS[family]).values[run.name]
        worst[run.name] = small.differ(runs.part(found), wanted)
    bounds = {name: 2e-5 if name.startswith(("videocrafter", "dynamicrafter-256")) else 3e-4 for name in worst}
    assert all(value < bounds[name] for name, value in worst.items()), worst
    return worst


def check_the_hosts_image_encoder_makes_the_tokens_of_the_originals(host):
    """Our pixels through the inner model of the host's CLIP_VISION, and the projector behind it."""
    vision, encoder = (host.module(f"{name}") for name in ("nodes.host.models.clip_vision", "t2v_models.image.encoder"))
    runs, found = small.references().image_runs, {}
    for network in ("dynamicrafter-512", "videocrafter1-i2v"):
        model, _, _, clip_vision = small.load(host, network)
        weights = {
            key.removeprefix("embedder.model."): value
            for key, value in small.recording(network).state_dict().items()
            if key.startswith("embedder.")
        }
        wanted = encoder.make_encoder(weights)
        for size in ((32, 64), (300, 200), (224, 224), (576, 1024)):
            image = small.picture("first", *size)
            assert small.differ(vision.encode(clip_vision, image), wanted.encode(image)) < 1e-5
        for image, name in ((small.picture(), "tokens"), (torch.full((1, 32, 64, 3), 0.5), "grey tokens")):
            tokens = model.model.image_projector.project(vision.encode(clip_vision, image))
            found[network, name] = small.differ(runs.part(tokens), small.recording(network).values[name])
    assert max(found.values()) < 1e-5, found
    return max(found.values())


def check_the_clip_vision_is_one_for_cores_nodes(host):
    clip_vision = small.load(host)[3]
    (output,) = host.run("CLIPVisionEncode", clip_vision, small.picture("first", 224, 224), "none")
    assert output["last_hidden_state"].shape == (1, 257, 80)
    assert output["image_embeds"].shape == (1, 16)
    assert all(output[name].isfinite().all() for name in ("last_hidden_state", "image_embeds"))


def check_an_encoder_that_core_made_is_taken_where_it_fits(host):
    """In place of the model's own, and for a pruned file, which has none."""
    import json

    import comfy.clip_vision

    own = small.load(host)[3]
    config = {
        "model_type": "clip_vision_model", "hidden_size": 80, "intermediate_size": 320, "num_hidden_layers": 2,
        "num_attention_heads": 1, "num_channels": 3, "patch_size": 14, "image_size": 224, "hidden_act": "gelu",
        "projection_dim": 16,
    }  # fmt: skip
    path = host.base / "vision.json"
    path.write_text(json.dumps(config))
    with small.single_precision():
        others = comfy.clip_vision.ClipVisionModel(str(path))
    others.load_sd(own.get_sd())
    plain = small.animate(host)
    pruned = small.load(host, leave_out=("embedder.",))
    assert pruned[3] is None
    for model, vision in ((small.load(host)[0], others), (pruned[0], others)):
        found = small.animate(host, model=model, clip_vision=vision)
        assert torch.equal(found[1][0][1]["t2v_image_tokens"], plain[1][0][1]["t2v_image_tokens"])
    assert "Load CLIP Vision" in host.refusal(lambda: small.animate(host, model=pruned[0], clip_vision=None))


def check_the_negative_has_the_tokens_of_a_grey_picture_and_the_same_latents(host):
    _, positive, negative, _ = small.animate(host)
    grey = small.animate(host, image=torch.full((1, 32, 64, 3), 0.5))
    tokens, latents = "t2v_image_tokens", "concat_latent_image"
    assert torch.equal(positive[0][1][latents], negative[0][1][latents])
    assert small.differ(grey[1][0][1][tokens], negative[0][1][tokens]) < 1e-5
    assert small.differ(positive[0][1][tokens], negative[0][1][tokens]) > 1e-3


def check_no_trace_of_a_picture_remains(host):
    """A picture, another one, and the first again; and each by a model that was loaded afresh."""
    import comfy.model_management

    first, second = small.picture(), small.picture("last")
    one, other, again = (small.sample(host, small.animate(host, image=each)) for each in (first, second, first))
    assert torch.equal(one, again)
    assert small.differ(one, other) > 1e-3
    comfy.model_management.unload_all_models()
    fresh = small.Fresh(host)
    assert torch.equal(small.sample(host, small.animate(fresh, image=second)), other)


def check_strength_zero_is_the_text_alone(host):
    pictures = host.module("nodes.host.models.pictures")
    for family in ("dynamicrafter-512", "videocrafter1-i2v"):
        network = small.references().image_runs.NETWORKS[family]
        texts = dict(zip(("positive", "negative"), small.texts(network), strict=True))
        found = [
            small.sample(host, small.animate(host, family, small.picture(name), image_strength=0.0, **texts))
            for name in ("first", "last")
        ]
        model, _, _, latent = small.animate(host, family, **texts)
        nothing = torch.zeros(1, 4, 16, 4, 8) if family.startswith("dynamicrafter") else None
        conds = [pictures.with_picture(text, family, None, nothing, 0.0) for text in texts.values()]
        alone = small.sample(host, (model, *conds, latent))
        assert torch.equal(found[0], found[1])
        assert torch.equal(found[0], alone)
        strengths = [
            small.sample(host, small.animate(host, family, image_strength=s, **texts)) for s in (0.3, 0.6, 1.0)
        ]
        steps = [small.differ(one, other) for one, other in zip([alone, *strengths], strengths, strict=False)]
        assert min(steps) > 1e-3, steps


def counted(model, run):
    """What a run gives, and the rows of each call of the UNet."""
    rows = []
    inner = type(model.model.diffusion_model)
    forward = inner._forward

    def count(self, x, *args, **kwargs):
        rows.append(len(x))
        return forward(self, x, *args, **kwargs)

    inner._forward = count
    try:
        return run(), rows
    finally:
        inner._forward = forward


def check_a_scale_for_the_picture_costs_one_evaluation_more_and_none_where_it_is_cfg(host):
    plain, same, third = (small.animate(host, image_cfg=scale) for scale in (0.0, 7.5, 3.0))
    (wanted, calls), (equal, equal_calls), (other, more) = (
        counted(each[0], lambda each=each: small.sample(host, each)) for each in (plain, same, third)
    )
    assert sum(calls) == sum(equal_calls) == 4
    assert sum(more) == 6
    assert torch.equal(wanted, equal)
    assert small.differ(other, wanted) > 1e-3
    once, calls = counted(plain[0], lambda: small.sample(host, plain, cfg=1.0))
    assert sum(calls) == 2, calls
    both, calls = counted(third[0], lambda: small.sample(host, small.animate(host, image_cfg=1.0), cfg=1.0))
    assert small.differ(both, once) < 1e-5


def check_every_sampler_node_takes_a_picture(host):
    model, positive, negative, latent = prepared = small.animate(host)
    wanted = small.ksample(host, prepared)
    (ours,) = host.run("T2VVideoSampler", *prepared, 7, 2, 7.5, "euler", "normal", 1.0)
    how = (7, 2, 7.5, "euler", "normal", positive, negative, latent)
    (advanced,) = host.run("KSamplerAdvanced", model, "enable", *how, 0, 1000, "disable")
    (noise,), (sampler,) = host.run("RandomNoise", 7), host.run("KSamplerSelect", "euler")
    (sigmas,) = host.run("BasicScheduler", model, "normal", 2, 1.0)
    (guider,) = host.run("CFGGuider", model, positive, negative, 7.5)
    custom = host.run("SamplerCustomAdvanced", noise, guider, sampler, sigmas, latent)[0]
    for each in (ours, advanced, custom):
        assert small.differ(each["samples"], wanted) < 1e-5
    (basic,) = host.run("BasicGuider", model, positive)
    alone = host.run("SamplerCustomAdvanced", noise, basic, sampler, sigmas, latent)[0]["samples"]
    assert small.differ(alone, small.ksample(host, prepared, cfg=1.0)) < 1e-5
    three = small.animate(host, image_cfg=3.0)[0]
    (basic,) = host.run("BasicGuider", three, positive)
    assert torch.equal(host.run("SamplerCustomAdvanced", noise, basic, sampler, sigmas, latent)[0]["samples"], alone)


def check_prompt_and_negative_apart_equal_both_at_once(host):
    prepared = small.animate(host, SMOOTH, image_cfg=3.0)
    inner = type(prepared[0].model)
    needed, joint = inner.memory_required, small.ksample(host, prepared)
    inner.memory_required = lambda self, shape, *a, **k: 1e15 if shape[0] > 1 else 1.0
    try:
        apart, calls = counted(prepared[0], lambda: small.ksample(host, prepared))
    finally:
        inner.memory_required = needed
    assert calls == [1] * 6
    assert small.differ(apart, joint) < 1e-4


def check_a_batch_of_two_equals_two_runs(host):
    prepared = small.animate(host, SMOOTH, image_cfg=3.0)
    one = small.ksample(host, prepared, latent={**prepared[3], "batch_index": [1]})
    two = {"samples": torch.zeros(2, 4, 16, 4, 8), "batch_index": [0, 1]}
    both = small.ksample(host, prepared, latent=two)
    assert small.differ(both[1:], one) < 1e-4
    assert small.differ(both[:1], one) > 1e-2


def check_frames_as_a_batch_equal_a_clip(host):
    import comfy.sample

    model, positive, negative, latent = small.animate(host)
    noise = torch.randn(1, 4, 16, 4, 8, generator=torch.Generator().manual_seed(1))
    how = (2, 7.5, "euler", "normal", positive, negative)
    clip = comfy.sample.sample(model, noise, *how, latent["samples"])
    frames = comfy.sample.sample(model, noise[0].transpose(0, 1), *how, latent["samples"][0].transpose(0, 1))
    assert small.differ(frames.transpose(0, 1)[None], clip) < 1e-5


def check_areas_and_steps_of_a_conditioning_keep_the_picture(host):
    model, positive, negative, latent = prepared = small.animate(host, SMOOTH)
    plain = small.ksample(host, prepared)
    (whole,) = host.run("ConditioningSetArea", positive, 64, 32, 0, 0, 1.0)
    assert small.differ(small.ksample(host, (model, whole, negative, latent)), plain) < 1e-5
    (part,) = host.run("ConditioningSetArea", positive, 32, 32, 32, 0, 1.0)
    (later,) = host.run("ConditioningSetAreaPercentageVideo", positive, 1.0, 1.0, 0.5, 0.0, 0.0, 0.5, 1.0)
    (half,) = host.run("ConditioningSetTimestepRange", positive, 0.0, 0.5)
    for each in (part, later):
        found = small.ksample(host, (model, each + positive, negative, latent))
        assert found.isfinite().all()
        assert small.differ(found, plain) > 1e-4
    assert small.ksample(host, (model, half + positive, negative, latent)).isfinite().all()


def check_free_noise_and_free_init_take_pictures(host):
    model, *others = small.animate(host, SMOOTH, frames=32)
    for name, how in (("T2VFreeNoise", (16, 8, "pyramid")), ("T2VFreeInit", (2, "butterworth", 0.25, 0.25, 4))):
        (patched,) = host.run(name, model, *how)
        assert small.sample(host, (patched, *others)).isfinite().all()


def check_weights_of_fewer_bits_give_nearly_the_same(host):
    name = small.write(host, SMOOTH)
    prepared = small.animate(host, SMOOTH)
    whole = small.sample(host, prepared)
    for dtype, bound in (("fp16", 0.05), ("bf16", 0.2), ("fp8_e4m3fn", 1.0)):
        model, _, vae, clip_vision = host.run("T2VModelLoader", name, dtype, family=SMOOTH)
        found = small.sample(host, small.animate(host, SMOOTH, model=model, vae=vae, clip_vision=clip_vision))
        assert found.isfinite().all()
        assert small.differ(found, whole) < bound, dtype


def check_a_saved_model_keeps_its_projector(host):
    model = small.load(host)[0]
    host.run("ModelSave", model, "diffusion_models/pictures")
    saved = sorted((host.base / "output" / "diffusion_models").glob("pictures*.safetensors"))[-1]
    saved.rename(host.base / "models" / "text2video" / "saved-pictures.safetensors")
    again = host.run("T2VModelLoader", "saved-pictures.safetensors", "default")[0]
    assert again.model.family == model.model.family
    wanted = small.sample(host, small.animate(host))
    assert small.differ(small.sample(host, small.animate(host, model=again)), wanted) < 1e-5


def check_models_of_pictures_can_be_made_again_from_disk(host):
    model, _, _, clip_vision = small.load(host, "dynamicrafter-512-interp")
    for patcher in (model, clip_vision.patcher):
        factory, arguments = patcher.cached_patcher_init[:2]
        with small.single_precision():
            again = factory(*arguments)
        old, new = patcher.model.state_dict(), again.model.state_dict()
        assert old.keys() == new.keys()
        assert all(torch.equal(old[key], new[key]) for key in old)
    assert factory(*arguments, disable_dynamic=True) is not None
    factory, arguments = model.cached_patcher_init[:2]
    again = factory(*arguments, disable_dynamic=True).model
    assert again.family.name == "dynamicrafter-512-interp"
    assert again.image_projector is not None


def check_the_family_is_what_is_chosen(host):
    name = small.write(host, "dynamicrafter-512")
    for family in ("dynamicrafter-512", "dynamicrafter-512-loop", "dynamicrafter-1024"):
        model = host.run("T2VModelLoader", name, "default", family=family)[0]
        assert model.model.family.name == family
    for wrong in ("modelscope", "videocrafter1-i2v"):
        said = host.refusal(lambda wrong=wrong: host.run("T2VModelLoader", name, "default", family=wrong))
        assert "another family" in said


def i2vgen(host):
    """A small I2VGen-XL of seeded weights with the recorded image encoder: the library's UNet and image model, and a MODEL."""
    from types import SimpleNamespace

    unets, image = host.module("t2v_models.unet"), host.module("t2v_models.image.conditioning")
    family = host.module("t2v_models.families").FAMILIES["i2vgen-xl"]
    config = unets.UNetConfig(
        in_channels=8, channels=(32, 64), num_res_blocks=1, attention_levels=(True, False), head_dim=16, context_dim=16,
        init_heads=2, fps_embedding=True, image_branches=True,
    )  # fmt: skip
    unet = small.references().seeding.fill(unets.UNet3D(config))
    info = SimpleNamespace(family=family, defaults=family.defaults)
    make = host.module("nodes.host.models.model").load_model
    model = make(dict(unet.state_dict()), config, info, family.scheduler_config())
    weights = small.recording("dynamicrafter-512").state_dict()
    checkpoint = host.module("t2v_models.checkpoints").open_checkpoint(weights, family="dynamicrafter-512")
    encoder = host.module("t2v_models.image.encoder").make_encoder(checkpoint.image_encoder())
    return unet, image.ImageModel(family, encoder, branches=unet.image_branches), model


def check_i2vgen_is_given_of_a_picture_what_the_library_gives(host):
    """Every call of the UNet equals the library's own for the same latents, texts and picture."""
    unet, image_model, model = i2vgen(host)
    normal, picture, vae = small.references().seeding.normal, small.picture("first", 80, 120), small.load(host)[2]
    conds = {name: [[normal(name, (1, 77, 16)), {}]] for name in ("positive", "negative")}
    calls, worst = [], []
    inner = type(model.model.diffusion_model)
    forward = inner._forward

    def watch(self, x, timesteps, context, *args, **kwargs):
        out = forward(self, x, timesteps, context, *args, **kwargs)
        calls.append((x, timesteps, context, out))
        return out

    fitted = host.module("t2v_models.image.fit").fit(picture, 64, 32)
    encode = host.module("nodes.host.decoding").encode
    for strength in (1.0, 0.5):
        inputs = image_model.inputs(picture, [fitted], 16, lambda each, noise: 0.18215 * encode(vae, each)[:, :, 0])
        tokens = torch.cat([inputs.unconditional, inputs.tokens])
        inner._forward = watch
        try:
            prepared = small.animate(host, image=picture, model=model, image_strength=strength, **conds)
            small.sample(host, prepared, 2, 9.0, sampler="ddim")
        finally:
            inner._forward = forward
        for x, timesteps, context, out in calls:
            x = torch.cat([x, (inputs.latents * strength).expand(len(x), -1, -1, -1, -1)], dim=1)
            options = {"image_strength": strength}
            worst.append(small.differ(unet(x, timesteps, context, fps=16, image_context=tokens, options=options), out))
        calls.clear()
    assert len(worst) == 4
    assert max(worst) < 1e-5, worst
    (windowed,) = host.run("T2VWindows", prepared[0], 8, 4, "pyramid", False)
    assert small.sample(host, (windowed, *prepared[1:])).isfinite().all()
    assert "image encoder" in host.refusal(lambda: small.animate(host, model=model, clip_vision=None, **conds))
    wider = [[torch.zeros(1, 77, 16), {}]]
    assert "embedding" in host.refusal(
        lambda: small.animate(host, model=model, clip_vision=small.vision_of_width(host, 64, 8), positive=wider)
    )
    return max(worst)
