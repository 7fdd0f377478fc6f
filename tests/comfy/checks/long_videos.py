"""Stories, windows, FreeNoise and FreeInit in the host, with our sampler and with core's."""

STORY = "0-50%: a red circle / 50%-100%: a blue square"


def _refusal(call):
    """What a call says when it refuses."""
    try:
        call()
    except ValueError as error:
        return str(error)
    raise AssertionError("nothing was refused")


def _difference(one, other):
    """Largest difference, where the values are of order one."""
    return float((one - other).abs().max() / one.std())


def _call(host, model, positive, negative, frames=4, steps=3, seed=1):
    (latent,) = host.run("T2VEmptyLatent", 32, 32, frames, 1)
    (out,) = host.run("T2VVideoSampler", model, positive, negative, latent, seed, steps, 4.0, "ddim", "diffusers", 1.0)
    return out["samples"]


def _ksampler(host, model, positive, negative, frames=4, seed=1):
    (latent,) = host.run("T2VEmptyLatent", 32, 32, frames, 1)
    (out,) = host.run("KSampler", model, seed, 3, 4.0, "euler", "normal", positive, negative, latent, 1.0)
    return out["samples"]


def check_a_window_of_clips_does_not_shift_a_story(host):
    """Core's context windows can be told to cut the batch: each part still hears the story from its beginning."""
    import torch

    stories = host.module("nodes.host.stories")
    asked = []

    def context(texts, blend, shape, frames, window):
        asked.append(window)
        return before(texts, blend, shape, frames, window)

    model, clip, _ = host.tiny()
    told = host.run("T2VStory", clip, "0-2: a red circle\n2-4: a blue square", 4, 8.0)[:2]
    (latent,) = host.run("T2VEmptyLatent", 32, 32, 4, 6)
    import comfy.context_windows as cw

    patched = model.clone()
    flat = cw.ContextFuseMethod("flat", lambda length, **kwargs: [1.0] * length)
    cut = cw.ContextSchedule("cut", lambda num, handler, options: [[0, 1, 2, 3], [2, 3, 4, 5]])
    handler = cw.IndexListContextHandler(cut, flat, 4, 2, dim=0)
    handler.set_step = lambda *args: None  # older hosts look at the noise level of one clip only
    patched.model_options["context_handler"] = handler
    cw.create_prepare_sampling_wrapper(patched)
    before, stories.context = stories.context, context
    try:
        whole, parts = (
            host.run("T2VVideoSampler", each, *told, latent, 1, 2, 4.0, "ddim", "diffusers", 1.0)[0]["samples"]
            for each in (model, patched)
        )
    finally:
        stories.context = before
    assert asked
    assert not any(asked)
    assert torch.isfinite(parts).all()
    assert _difference(whole, parts) < 1e-4


def check_a_story_of_one_scene_is_its_prompt(host):
    model, clip, _ = host.tiny()
    positive, negative = host.conds(clip, "a red circle", "")
    told, told_negative, picture = host.run("T2VStory", clip, "0-100%: a red circle", 4, 8.0)
    assert picture.shape[0] == 1
    assert picture.shape[-1] == 3
    assert 0 <= picture.min() <= picture.max() <= 1
    worst = []
    for sample in (_call, _ksampler):
        plain = sample(host, model, positive, negative)
        worst.append(_difference(plain, sample(host, model, told, told_negative)))
        worst.append(_difference(plain, sample(host, model, told, negative)))
    assert max(worst) < 1e-4, worst
    return worst


def check_a_story_changes_its_own_frames(host):
    model, clip, _ = host.tiny()
    one = host.run("T2VStory", clip, "0-4: a red circle\n4-8: a red circle", 8, 8.0)
    other = host.run("T2VStory", clip, "0-4: a red circle\n4-8: a blue square", 8, 8.0)
    change = (_call(host, model, *one[:2], frames=8, steps=1) - _call(host, model, *other[:2], frames=8, steps=1)).abs()
    per_frame = change.mean((0, 1, 3, 4))
    assert per_frame[4:].mean() > per_frame[:4].mean() > 0
    return per_frame.tolist()


def check_conditionings_serve_as_scenes(host):
    model, clip, _ = host.tiny()
    red, blue = host.conds(clip, "a red circle", "a blue square")
    text = "0-2: x\n2-4: y"
    wired = host.run("T2VStory", clip, text, 4, 8.0, scene_1=red, scene_2=blue)
    written = host.run("T2VStory", clip, "0-2: a red circle\n2-4: a blue square", 4, 8.0)
    difference = _difference(_call(host, model, *wired[:2]), _call(host, model, *written[:2]))
    assert difference < 1e-4, difference
    said = _refusal(lambda: host.run("T2VStory", clip, text, 4, 8.0, scene_1=red))
    assert "wire one for each line" in said


def check_nodes_that_know_one_text_empty_a_story_or_are_refused(host):
    model, clip, _ = host.tiny()
    told, other = host.run("T2VStory", clip, "0-2: a red circle\n2-4: a blue square", 4, 8.0)[:2]
    plain = host.conds(clip, "a green star")[0]
    zero = host.run("ConditioningZeroOut", plain)[0]
    emptied = host.run("ConditioningZeroOut", told)[0]
    for sample in (_call, _ksampler):
        assert _difference(sample(host, model, told, zero), sample(host, model, told, emptied)) < 1e-4
        for node, args in (("ConditioningAverage", (told, plain, 0.5)), ("ConditioningConcat", (told, plain))):
            changed = host.run(node, *args)[0]
            said = _refusal(lambda sample=sample, changed=changed: sample(host, model, changed, other))
            assert "one conditioning per scene" in said, node
    kept = host.run("ConditioningSetTimestepRange", told, 0.0, 1.0)[0]
    assert _difference(_call(host, model, told, other), _call(host, model, kept, other)) < 1e-4


def check_windows_serve_several_clips_at_once(host):
    import torch

    model, clip, _ = host.tiny()
    positive, negative = host.conds(clip, "a red circle", "")
    (patched,) = host.run("T2VWindows", model, 4, 2, "pyramid", False)
    torch.manual_seed(0)
    clips = torch.randn(2, 4, 6, 4, 4)
    how = (1, 3, 4.0, "euler", "normal", positive, negative)

    def refined(samples):
        return host.run("KSamplerAdvanced", patched, "disable", *how, {"samples": samples}, 1, 3, "disable")[0][
            "samples"
        ]

    together, apart = refined(clips), torch.cat([refined(each[None]) for each in clips])
    assert _difference(apart, together) < 1e-4
    return _difference(apart, together)


def check_windows_serve_samplers_that_look_between_steps(host):
    model, clip, _ = host.tiny()
    positive, negative = host.conds(clip, "a red circle", "")
    (patched,) = host.run("T2VWindows", model, 4, 2, "pyramid", False)
    (latent,) = host.run("T2VEmptyLatent", 32, 32, 6, 1)
    for sampler in ("dpm_2", "dpmpp_2s_ancestral", "heun"):
        out = host.run("KSampler", patched, 1, 3, 4.0, sampler, "normal", positive, negative, latent, 1.0)[0]["samples"]
        assert out.isfinite().all(), sampler
        assert out.std() > 0.01, sampler


def check_a_text_as_wide_as_the_clip_is_long_is_not_cut_to_windows(host):
    model, clip, _ = host.tiny()
    positive, negative = host.conds(clip, "a red circle", "")
    frames = positive[0][0].shape[-1]
    (patched,) = host.run("T2VWindows", model, 16, 4, "pyramid", False)
    assert _ksampler(host, patched, positive, negative, frames=frames).shape[2] == frames


def check_one_window_over_all_frames_is_no_window(host):
    model, clip, _ = host.tiny()
    conds = host.conds(clip, "a red circle", "")
    plain = _call(host, model, *conds)
    for node, more in (("T2VWindows", (False,)), ("T2VFreeNoise", ())):
        (patched,) = host.run(node, model, 4, 2, "pyramid", *more)
        assert (plain - _call(host, patched, *conds)).abs().max() < 1e-6, node


def check_long_clips_in_windows_follow_the_story_with_every_sampler(host):
    model, clip, _ = host.tiny()
    told = host.run("T2VStory", clip, "0-6: a red circle\n6-11: a blue square", 11, 8.0)[:2]
    made = {}
    for name, node, arguments in (
        ("windows", "T2VWindows", (4, 2, "linear", False)),
        ("loop", "T2VWindows", (4, 2, "pyramid", True)),
        ("freenoise", "T2VFreeNoise", (4, 2, "pyramid")),
    ):
        (patched,) = host.run(node, model, *arguments)
        for sample in (_call, _ksampler):
            out = sample(host, patched, *told, frames=11)
            assert out.shape == (1, 4, 11, 4, 4)
            assert out.isfinite().all()
            made[f"{name} {sample.__name__}"] = float(out.std())
    assert model.model_options.get("context_handler") is None  # the input stays as it was
    return made


def check_stories_of_another_length_are_stretched_in_windows_too(host):
    model, clip, _ = host.tiny()
    text = "0-50%: a red circle / 50%-100%: a blue square"
    (patched,) = host.run("T2VWindows", model, 4, 2, "linear", False)
    for made in (model, patched):
        fits, half = (host.run("T2VStory", clip, text, frames, 8.0)[:2] for frames in (10, 20))
        assert _difference(_call(host, made, *fits, frames=10), _call(host, made, *half, frames=10)) < 1e-4


def _noise_sampled(host, model, samples):
    """What noise a model's wrappers hand to the sampler, round by round; the result has content in late frames only."""
    import comfy.patcher_extension
    import torch

    seen = []

    class Guider:
        model_patcher = model

    def sample(noise, latent, *rest, **kwargs):
        seen.append(noise)
        result = torch.zeros_like(noise)
        (result[:, :, 4:] if noise.ndim == 5 else result[4:]).fill_(5.0)
        return result

    kind = comfy.patcher_extension.WrappersMP.OUTER_SAMPLE
    wrappers = [each for key in model.wrappers.get(kind, {}).values() for each in key]
    executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(sample, Guider(), wrappers)
    noise = torch.randn(samples.shape, generator=torch.Generator().manual_seed(1))
    sigmas = torch.tensor([float(model.get_model_object("model_sampling").sigma_max), 0.0])
    executor.execute(noise, samples, None, sigmas, seed=1)
    return noise, seen


def check_free_noise_repeats_the_noise_of_frames_as_batch_too(host):
    import torch

    model = host.tiny()[0]
    (patched,) = host.run("T2VFreeNoise", model, 4, 2, "pyramid")
    for shape, frames in (((1, 4, 10, 4, 4), 2), ((10, 4, 4, 4), 0)):
        noise, (given,) = _noise_sampled(host, patched, torch.zeros(shape))
        noise, given = noise.movedim(frames, 0), given.movedim(frames, 0)
        assert torch.equal(given[:4], noise[:4])
        for start in (4, 6, 8):
            wanted = given[start - 4 : start - 2]
            assert any(torch.equal(given[start : start + 2], order) for order in (wanted, wanted.flip(0))), shape


def check_free_init_keeps_what_it_found_with_free_noise_on_either_side(host):
    import torch

    model = host.tiny()[0]
    free_noise, free_init = ("T2VFreeNoise", (4, 2, "pyramid")), ("T2VFreeInit", (2, "butterworth", 0.5, 0.5, 4))
    for first, second in ((free_noise, free_init), (free_init, free_noise)):
        (patched,) = host.run(first[0], model, *first[1])
        (patched,) = host.run(second[0], patched, *second[1])
        _, (begun, renewed) = _noise_sampled(host, patched, torch.zeros(1, 4, 10, 4, 4))
        assert not torch.equal(begun, renewed)
        early, late = renewed[:, :, :4].mean(), renewed[:, :, 4:].mean()
        assert late > early + 0.1, (first[0], float(early), float(late))


def check_free_init_renews_noise_as_free_noise_repeats_it(host):
    """With a filter that lets nothing pass, each round's noise is FreeNoise's own of another seed."""
    import comfy.sample
    import torch

    model, long = host.tiny()[0], host.module("nodes.host.long")
    (repeated,) = host.run("T2VFreeNoise", model, 4, 2, "pyramid")
    for shape in ((1, 4, 10, 4, 4), (10, 4, 4, 4)):
        empty = torch.zeros(shape)
        _, (_, renewed) = _noise_sampled(host, long.with_free_init(repeated, 2, "ideal", 0.0, 0.0, 4), empty)
        windows = host.module("t2v_models.sampling.windows").Windows(4, 2)
        fresh = comfy.sample.prepare_noise(empty, 2)
        wanted = long._as_before(long._repeated(long._clips(fresh), windows, 2), fresh)
        assert not torch.equal(wanted, fresh)
        # the mean of all passes every filter
        assert _difference(renewed - renewed.mean(), wanted - wanted.mean()) < 0.05, shape


def check_free_noise_comes_before_free_init_and_leaves_the_rest_in_order(host):
    import comfy.patcher_extension

    kind, model = comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, host.tiny()[0].clone()
    for name in ("t2v_free_init", "cache"):
        if name == "cache":
            model.add_wrapper_with_key(kind, name, lambda executor, *args, **kwargs: executor(*args, **kwargs))
        else:
            (model,) = host.run("T2VFreeInit", model, 2, "butterworth", 0.5, 0.5, 4)
    (patched,) = host.run("T2VFreeNoise", model, 4, 2, "pyramid")
    names = [name for name in patched.wrappers[kind] if name and ("free" in name or name == "cache")]
    assert names == ["t2v_free_noise", "t2v_free_init", "cache"]
    assert "t2v_free_noise" not in model.wrappers[kind]  # the input stays as it was


def check_free_init_begins_anew_from_what_there_is_of_a_video(host):
    """With a filter that lets all pass, the second run is a video-to-video run of the first one's result."""
    import torch

    model, clip, _ = host.tiny()
    conds = host.conds(clip, "a red circle", "")
    torch.manual_seed(0)
    source = {"samples": torch.randn(1, 4, 4, 4, 4)}
    args = (1, 4, 4.0, "euler", "normal", 0.5)
    first = host.run("T2VVideoSampler", model, *conds, source, *args)[0]
    second = host.run("T2VVideoSampler", model, *conds, first, *args)[0]["samples"]
    patched = host.module("nodes.host.long").with_free_init(model, 2, "ideal", 9.0, 9.0, 4)
    assert _difference(host.run("T2VVideoSampler", patched, *conds, source, *args)[0]["samples"], second) < 1e-4
    without = {"start_step": 1, "add_noise": False}
    said = _refusal(lambda: host.run("T2VVideoSampler", patched, *conds, source, *args[:-1], 1.0, **without))
    assert "add_noise" in said


def check_free_init_of_one_iteration_changes_nothing_and_of_two_something(host):
    model, clip, _ = host.tiny()
    conds = host.conds(clip, "a red circle", "")
    plain = _call(host, model, *conds)
    once, twice = (host.run("T2VFreeInit", model, n, "butterworth", 0.25, 0.25, 4)[0] for n in (1, 2))
    assert (plain - _call(host, once, *conds)).abs().max() == 0
    assert (plain - _call(host, twice, *conds)).abs().max() > 1e-3
    assert _ksampler(host, twice, *conds).isfinite().all()


def check_windows_that_cannot_cover_and_frames_as_batch_are_refused(host):
    model, clip, _ = host.tiny()
    for arguments, words in (((4, 4, "flat", False), "overlap is 4"), ((4, 9, "flat", False), "overlap is 9")):
        assert words in _refusal(lambda arguments=arguments: host.run("T2VWindows", model, *arguments))
    (patched,) = host.run("T2VWindows", model, 4, 2, "flat", False)
    (latent,) = host.run("T2VEmptyLatent", 32, 32, 6, 1)
    frames = {"samples": latent["samples"][0].movedim(1, 0)}
    conds = host.conds(clip, "a", "")
    settings = (1, 2, 4.0, "ddim", "diffusers", 1.0)
    said = _refusal(lambda: host.run("T2VVideoSampler", patched, *conds, frames, *settings))
    assert "5 dimensions" in said
    said = _refusal(lambda: _call(host, patched, *conds, frames=3))
    assert "first window has 4 frames, but the clip has 3" in said


def check_windows_are_drawn(host):
    (picture,) = host.run("T2VDrawWindows", 64, 8.0, 16, 8, "pyramid", False)
    assert picture.shape[0] == 1
    assert picture.std() > 0.05


def check_a_stopped_film_goes_on_with_its_own_model_only(host):
    import torch

    film = host.module("nodes.host.film")
    clip = host.tiny("tiny-v")[1]
    model = host.tiny("tiny-v")[0]
    key = "diffusion_model.middle_block.0.in_layers.2.weight"
    weight = model.model.state_dict()[key]

    def patched(scale):
        clone = model.clone()
        clone.add_patches({key: ("diff", (torch.full_like(weight, scale),))}, 1.0)
        return clone

    def identity(model, clip=clip):
        return film.HostPipeline(model, clip).identity()

    known = [identity(model), identity(patched(0.1)), identity(patched(0.2))]
    known.append(identity(host.run("T2VModelConditioning", model, 12.0, 0.0, 0.0)[0]))
    known.append(identity(model, host.tiny()[1]))
    assert len(set(known)) == len(known)
    conds = host.conds(clip, "a", "")
    _call(host, patched(0.1), *conds)  # loads the patched weights
    assert identity(patched(0.1)) == known[1]

    folder = host.base / "output" / "t2v_unfinished"
    size = {"frames": 9, "width": 32, "height": 32, "fps": 8.0, "length": 4, "overlap": 2}
    how = {"fusion": "pyramid", "looped": False, "resume": True, "seed": 3, "steps": 2, "cfg": 4.0}
    made = [host.run("T2VFilm", model, clip, STORY, method="coarse-to-fine", **size, **how)[0] for _ in range(2)]
    assert torch.equal(made[0]["samples"], made[1]["samples"])
    (kept,) = folder.iterdir()
    host.run("T2VFilm", patched(0.1), clip, STORY, method="windows", **size, **how)
    (other,) = folder.iterdir()
    assert other != kept, "a finished film makes room for the next"


def check_a_film_is_not_resumed_where_code_of_other_nodes_decides_how_it_looks(host):
    import torch

    (model, clip, _), folder = host.tiny("tiny-v"), host.base / "output" / "t2v_unfinished"
    size = {"frames": 4, "width": 32, "height": 32, "fps": 8.0, "length": 4, "overlap": 2}
    how = {"fusion": "pyramid", "looped": False, "resume": True, "seed": 4, "steps": 2, "cfg": 4.0}
    known, made = {each.name for each in folder.glob("*")}, []
    for factor in (1.0, 1.5):
        patched = model.clone()
        patched.set_model_output_block_patch(lambda h, hsp, options, factor=factor: (h * factor, hsp))
        made.append(host.run("T2VFilm", patched, clip, STORY, method="windows", **size, **how)[0]["samples"])
    assert not torch.allclose(*made)
    assert {each.name for each in folder.glob("*")} == known
    pipeline = host.module("nodes.host.film").HostPipeline
    assert pipeline(model, clip).unknowable() == []
    added, attention, hooked = model.clone(), model.clone(), clip.clone()
    added.set_injections("bypass_lora", [object()])
    attention.model_options["transformer_options"]["optimized_attention_override"] = lambda *args: None
    hooked.patcher.forced_hooks = object()
    told = [pipeline(*each).unknowable() for each in ((added, clip), (attention, clip), (model, hooked))]
    assert told == [["bypass_lora"], ["optimized_attention_override"], ["hooks"]]
    skipped = host.run("CLIPSetLastLayer", clip, -2)[0]
    pipelines = (host.module("nodes.host.film").HostPipeline(model, each) for each in (clip, skipped))
    assert len({each.identity() for each in pipelines}) == 2


def check_a_film_has_windows_of_its_own_whatever_the_model_has(host):
    import torch

    model, clip, _ = host.tiny("tiny-v")
    (other,) = host.run("T2VFreeNoise", model, 8, 4, "pyramid")
    size = {"frames": 9, "width": 32, "height": 32, "fps": 8.0, "length": 4, "overlap": 2}
    how = {"fusion": "pyramid", "looped": False, "resume": False, "seed": 3, "steps": 2, "cfg": 4.0}
    for method in ("coarse-to-fine", "free-noise"):
        films = [host.run("T2VFilm", m, clip, STORY, method=method, **size, **how)[0] for m in (model, other)]
        assert torch.equal(films[0]["samples"], films[1]["samples"]), method


def check_films_tell_patches_of_core_what_they_ask_for(host):
    model, clip, _ = host.tiny("tiny-v")
    seen = []

    def patch(h, options):
        seen.append((h.shape[0], options["cond_or_uncond"], float(options["sigmas"].max())))
        return h

    patched = model.clone()
    patched.set_model_output_block_patch(lambda h, hsp, options: (patch(h, options), hsp))
    size = {"frames": 4, "width": 32, "height": 32, "fps": 8.0, "length": 4, "overlap": 2}
    how = {"fusion": "pyramid", "looped": False, "resume": False, "seed": 3, "steps": 2}
    host.run("T2VFilm", patched, clip, STORY, method="windows", cfg=4.0, **size, **how)
    assert {tuple(parts) for _, parts, _ in seen} == {(1, 0)}
    assert seen[0][2] > seen[-1][2] > 0
    host.run("T2VFilm", patched, clip, STORY, method="windows", cfg=1.0, **size, **how)
    assert seen[-1][1] == [0]
    (shrunk,) = host.run("PatchModelAddDownscale", model, 1, 2.0, 0.0, 1.0, True, "bicubic", "bicubic")
    for method in ("windows", "endless"):
        host.run("T2VFilm", shrunk, clip, STORY, method=method, cfg=4.0, **size, **how)


def check_films_of_scaled_schedules_are_made(host):
    """VideoCrafter2's schedule on a small model: the first level is as far from the noise as it says."""
    import dataclasses

    model, clip, _ = host.run("T2VModelLoader", "tiny-v", "default")
    size = {"frames": 9, "width": 32, "height": 32, "fps": 8.0, "length": 4, "overlap": 2}
    how = {"fusion": "pyramid", "looped": False, "resume": False, "seed": 3, "steps": 2, "cfg": 4.0}
    made = []
    for scale in (None, 0.7):
        model.model.family = dataclasses.replace(model.model.family, scale_base=scale)
        made.append(host.run("T2VFilm", model, clip, STORY, method="windows", **size, **how)[0]["samples"])
    assert made[1].isfinite().all()
    assert _difference(*made) > 1e-2


def check_a_continued_clip_begins_with_the_clip(host):
    model, clip, _ = host.tiny()
    conds = host.conds(clip, "a red circle", "")
    samples = _call(host, model, *conds)
    (longer,) = host.run("T2VContinue", model, *conds, {"samples": samples}, 5, 1, 16, 4.0)
    assert longer["samples"].shape[2] == samples.shape[2] + 5
    assert _difference(samples, longer["samples"][:, :, : samples.shape[2]]) < 1e-5
    assert longer["samples"].isfinite().all()
