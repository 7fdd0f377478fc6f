"""FreeNoise and FreeInit: what noise the samplers are handed, and what comes of it."""


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

    model = host.tiny()[0]
    free_noise, free_init = (host.module(f"nodes.host.sampling.{name}") for name in ("free_noise", "free_init"))
    (repeated,) = host.run("T2VFreeNoise", model, 4, 2, "pyramid")
    for shape in ((1, 4, 10, 4, 4), (10, 4, 4, 4)):
        empty = torch.zeros(shape)
        _, (_, renewed) = _noise_sampled(host, free_init.with_free_init(repeated, 2, "ideal", 0.0, 0.0, 4), empty)
        windows = host.module("t2v_models.sampling.windows").Windows(4, 2)
        fresh = comfy.sample.prepare_noise(empty, 2)
        wanted = free_noise.in_layout_of(free_noise.repeated_noise(free_noise.as_clips(fresh), windows, 2), fresh)
        assert not torch.equal(wanted, fresh)
        # the mean of all passes every filter
        assert host.difference(renewed - renewed.mean(), wanted - wanted.mean()) < 0.05, shape


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
    patched = host.module("nodes.host.sampling.free_init").with_free_init(model, 2, "ideal", 9.0, 9.0, 4)
    assert host.difference(host.run("T2VVideoSampler", patched, *conds, source, *args)[0]["samples"], second) < 1e-4
    without = {"start_at_step": 1, "add_noise": False}
    said = host.refusal(lambda: host.run("T2VVideoSampler", patched, *conds, source, *args[:-1], 1.0, **without))
    assert "add_noise" in said


def check_free_init_of_one_iteration_changes_nothing_and_of_two_something(host):
    model, clip, _ = host.tiny()
    conds = host.conds(clip, "a red circle", "")
    plain = host.sample(model, *conds)
    once, twice = (host.run("T2VFreeInit", model, n, "butterworth", 0.25, 0.25, 4)[0] for n in (1, 2))
    assert (plain - host.sample(once, *conds)).abs().max() == 0
    assert (plain - host.sample(twice, *conds)).abs().max() > 1e-3
    assert host.ksample_video(twice, *conds).isfinite().all()
