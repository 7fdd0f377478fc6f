"""Long clips window by window, with our sampler and with core's."""


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
    assert host.difference(apart, together) < 1e-4
    return host.difference(apart, together)


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
    assert host.ksample_video(patched, positive, negative, frames=frames).shape[2] == frames


def check_one_window_over_all_frames_is_no_window(host):
    model, clip, _ = host.tiny()
    conds = host.conds(clip, "a red circle", "")
    plain = host.sample(model, *conds)
    for node, more in (("T2VWindows", (False,)), ("T2VFreeNoise", ())):
        (patched,) = host.run(node, model, 4, 2, "pyramid", *more)
        assert (plain - host.sample(patched, *conds)).abs().max() < 1e-6, node


def check_long_clips_in_windows_follow_the_story_with_every_sampler(host):
    model, clip, _ = host.tiny()
    story = host.run("T2VStory", clip, "0-6: a red circle\n6-11: a blue square", 11, 8.0)[:2]
    made = {}
    for name, node, arguments in (
        ("windows", "T2VWindows", (4, 2, "linear", False)),
        ("loop", "T2VWindows", (4, 2, "pyramid", True)),
        ("freenoise", "T2VFreeNoise", (4, 2, "pyramid")),
    ):
        (patched,) = host.run(node, model, *arguments)
        for sample in (host.sample, host.ksample_video):
            out = sample(patched, *story, frames=11)
            assert out.shape == (1, 4, 11, 4, 4)
            assert out.isfinite().all()
            made[f"{name} {sample.__name__}"] = float(out.std())
    assert model.model_options.get("context_handler") is None  # the input stays as it was
    return made


def check_windows_that_cannot_cover_and_frames_as_batch_are_refused(host):
    model, clip, _ = host.tiny()
    for arguments, words in (((4, 4, "flat", False), "overlap is 4"), ((4, 9, "flat", False), "overlap is 9")):
        assert words in host.refusal(lambda arguments=arguments: host.run("T2VWindows", model, *arguments))
    (patched,) = host.run("T2VWindows", model, 4, 2, "flat", False)
    (latent,) = host.run("T2VEmptyLatent", 32, 32, 6, 1)
    frames = {"samples": latent["samples"][0].movedim(1, 0)}
    conds = host.conds(clip, "a", "")
    settings = (1, 2, 4.0, "ddim", "diffusers", 1.0)
    said = host.refusal(lambda: host.run("T2VVideoSampler", patched, *conds, frames, *settings))
    assert "5 dimensions" in said
    said = host.refusal(lambda: host.sample(patched, *conds, frames=3))
    assert "first window has 4 frames, but the clip has 3" in said


def check_windows_are_drawn(host):
    (picture,) = host.run("T2VDrawWindows", 64, 8.0, 16, 8, "pyramid", False)
    assert picture.shape[0] == 1
    assert picture.std() > 0.05


def check_masks_go_with_the_frames_of_their_windows(host):
    """One per frame is cut to each window; a single one is not, even where it is as high as the clip is long."""
    import torch

    model, clip, _ = host.tiny()
    one, other, negative = host.conds(clip, "a red circle", "a blue square", "")
    (patched,) = host.run("T2VWindows", model, 4, 2, "pyramid", False)
    single = torch.zeros(1, 32, 32)
    single[:, :, 16:] = 1
    made, masked = [], []
    for mask in (single, single.repeat(8, 1, 1)):
        how = {"strength": 1.0, "set_cond_area": "default"}
        parts = [host.run("ConditioningSetMask", c, m, **how)[0] for c, m in ((one, mask), (other, 1 - mask))]
        (both,) = host.run("ConditioningCombine", *parts)
        masked.append(both)
        made.append(host.sample(patched, both, negative, frames=8))  # 8 frames, and a latent 4 high
        made.append(host.sample(model, both, negative, frames=8))
    assert all(out.isfinite().all() for out in made)
    assert host.difference(made[0], made[2]) < 1e-5
    assert host.difference(made[1], made[3]) < 1e-5
    (latent,) = host.run("T2VEmptyLatent", 64, 64, 8, 1)  # as high as long
    how = (1, 3, 4.0, "ddim", "diffusers", 1.0)
    out = [host.run("T2VVideoSampler", patched, both, negative, latent, *how)[0]["samples"] for both in masked]
    assert out[0].isfinite().all()
    assert host.difference(*out) < 1e-5


def check_a_loop_of_one_window_begins_anywhere(host):
    model, clip, _ = host.tiny()
    conds = host.conds(clip, "a red circle", "")
    (patched,) = host.run("T2VWindows", model, 4, 0, "pyramid", True)
    assert host.difference(host.sample(model, *conds), host.sample(patched, *conds)) > 1e-3
