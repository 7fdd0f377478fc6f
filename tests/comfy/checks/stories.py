"""Stories in the host: which text which frame hears, and what nodes that know one text do to them."""


def check_a_window_of_clips_does_not_shift_a_story(host):
    """Core's context windows can cut the batch: each part still follows the story from its beginning."""
    import torch

    stories = host.module("nodes.host.stories")
    asked = []

    def context(texts, blend, shape, frames, window):
        asked.append(window)
        return before(texts, blend, shape, frames, window)

    model, clip, _ = host.tiny()
    story = host.run("T2VStory", clip, "0-2: a red circle\n2-4: a blue square", 4, 8.0)[:2]
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
            host.run("T2VVideoSampler", each, *story, latent, 1, 2, 4.0, "ddim", "diffusers", 1.0)[0]["samples"]
            for each in (model, patched)
        )
    finally:
        stories.context = before
    assert asked
    assert not any(asked)
    assert torch.isfinite(parts).all()
    assert host.difference(whole, parts) < 1e-4


def check_a_story_of_one_scene_is_its_prompt(host):
    model, clip, _ = host.tiny()
    positive, negative = host.conds(clip, "a red circle", "")
    story, negative_story, picture = host.run("T2VStory", clip, "0-100%: a red circle", 4, 8.0)
    assert picture.shape[0] == 1
    assert picture.shape[-1] == 3
    assert 0 <= picture.min() <= picture.max() <= 1
    worst = []
    for sample in (host.sample, host.ksample_video):
        plain = sample(model, positive, negative)
        worst.append(host.difference(plain, sample(model, story, negative_story)))
        worst.append(host.difference(plain, sample(model, story, negative)))
    assert max(worst) < 1e-4, worst
    return worst


def check_texts_of_any_length_count_as_if_alone_in_nodes_and_films(host):
    """Of 154 and 231 tokens, neither divides the other."""
    import torch

    model, clip, _ = host.tiny()
    prompts = [" ".join(["red circle"] * 40), " ".join(["blue square"] * 80)]
    alone = [conditioning[0][0] for conditioning in host.conds(clip, *prompts)]
    assert [text.shape[1] for text in alone] == [154, 231]
    story = host.run("T2VStory", clip, "0-4: {}\n4-8: {}".format(*prompts), 8, 8.0)[0][0][1]["t2v_story"]
    in_film = host.module("nodes.host.film").HostPipeline(model, clip).encode_text(prompts)
    assert in_film.shape == story.texts[-2:].shape
    assert host.difference(story.texts[-2:], in_film) < 1e-5
    x, t = torch.randn(1, 4, 4, 8, 8), torch.tensor([500.0])
    for text, together in zip(alone, story.texts[-2:], strict=True):
        one, other = (model.model.diffusion_model(x, t, context=each) for each in (text, together[None]))
        assert host.difference(one, other) < 1e-5


def check_a_story_changes_its_own_frames(host):
    model, clip, _ = host.tiny()
    one = host.run("T2VStory", clip, "0-4: a red circle\n4-8: a red circle", 8, 8.0)
    other = host.run("T2VStory", clip, "0-4: a red circle\n4-8: a blue square", 8, 8.0)
    change = (host.sample(model, *one[:2], frames=8, steps=1) - host.sample(model, *other[:2], frames=8, steps=1)).abs()
    per_frame = change.mean((0, 1, 3, 4))
    assert per_frame[4:].mean() > per_frame[:4].mean() > 0
    return per_frame.tolist()


def check_conditionings_serve_as_scenes(host):
    model, clip, _ = host.tiny()
    red, blue = host.conds(clip, "a red circle", "a blue square")
    text = "0-2: x\n2-4: y"
    wired = host.run("T2VStory", clip, text, 4, 8.0, scene_1=red, scene_2=blue)
    written = host.run("T2VStory", clip, "0-2: a red circle\n2-4: a blue square", 4, 8.0)
    difference = host.difference(host.sample(model, *wired[:2]), host.sample(model, *written[:2]))
    assert difference < 1e-4, difference
    said = host.refusal(lambda: host.run("T2VStory", clip, text, 4, 8.0, scene_1=red))
    assert "wire one for each that is not negative" in said


def check_nodes_that_know_one_text_empty_a_story_or_are_refused(host):
    model, clip, _ = host.tiny()
    story, other = host.run("T2VStory", clip, "0-2: a red circle\n2-4: a blue square", 4, 8.0)[:2]
    plain = host.conds(clip, "a green star")[0]
    zero = host.run("ConditioningZeroOut", plain)[0]
    emptied = host.run("ConditioningZeroOut", story)[0]
    for sample in (host.sample, host.ksample_video):
        assert host.difference(sample(model, story, zero), sample(model, story, emptied)) < 1e-4
        for node, args in (("ConditioningAverage", (story, plain, 0.5)), ("ConditioningConcat", (story, plain))):
            changed = host.run(node, *args)[0]
            said = host.refusal(lambda sample=sample, changed=changed: sample(model, changed, other))
            assert "one conditioning per scene" in said, node
    kept = host.run("ConditioningSetTimestepRange", story, 0.0, 1.0)[0]
    assert host.difference(host.sample(model, story, other), host.sample(model, kept, other)) < 1e-4


def check_stories_of_another_length_are_stretched_in_windows_too(host):
    model, clip, _ = host.tiny()
    text = "0-50%: a red circle / 50%-100%: a blue square"
    (patched,) = host.run("T2VWindows", model, 4, 2, "linear", False)
    for made in (model, patched):
        fits, half = (host.run("T2VStory", clip, text, frames, 8.0)[:2] for frames in (10, 20))
        assert host.difference(host.sample(made, *fits, frames=10), host.sample(made, *half, frames=10)) < 1e-4


def check_a_story_carries_the_hooks_of_its_clip(host):
    clip = host.tiny()[1]
    hooked = clip.clone()
    hooked.apply_hooks_to_conds = hooks = object()
    for conditioning in host.run("T2VStory", hooked, "0-2: a red circle\n2-4: a blue square", 4, 8.0)[:2]:
        assert conditioning[0][1]["hooks"] is hooks
    red, blue = host.conds(clip, "a red circle", "a blue square")
    scenes = [[[c[0][0], {**c[0][1], "hooks": hooks}]] for c in (red, blue)]
    text = "0-2: x\n2-4: y"
    (wired,) = host.run("T2VStory", clip, text, 4, 8.0, scene_1=scenes[0], scene_2=scenes[1])[:1]
    assert wired[0][1]["hooks"] is hooks
    for first, word in (
        (scenes[0], "different hooks"),
        ([*red, *blue], "combine conditionings for a sampler only"),
        ([[red[0][0], {**red[0][1], "strength": 0.5}]], "carries strength"),
    ):
        said = host.refusal(lambda first=first: host.run("T2VStory", clip, text, 4, 8.0, scene_1=first, scene_2=blue))
        assert word in said, said
