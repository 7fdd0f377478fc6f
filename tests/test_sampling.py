"""The sampling mathematics against the papers' formulas, and diffusers where it has them."""

import itertools
import math

import pytest
import torch

from t2v_models.errors import T2VError
from t2v_models.sampling import windows as sampling_windows
from t2v_models.sampling.ddim import alphas_cumprod, ddim_step, ddim_timesteps, timesteps_of
from t2v_models.sampling.fifo import Fifo
from t2v_models.sampling.guidance import classifier_free, rescale
from t2v_models.sampling.infill import coarse_to_fine, sample_between, strides
from t2v_models.sampling.noise import FILTERS, low_pass, mix_frequencies, reschedule
from t2v_models.sampling.schedulers import SCHEDULERS, build_scheduler, scaled_schedule
from t2v_models.sampling.story import parse_story
from t2v_models.sampling.windows import FUSIONS, Windows, fuse, window_weights, windows

CONFIG = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


@pytest.mark.parametrize("kind", FILTERS)
@pytest.mark.parametrize("stops", [(0.25, 0.25), (0.5, 0.3), (0, 0.25)])
def test_freeinits_filters_equal_diffusers(kind, stops):
    from diffusers.pipelines.free_init_utils import FreeInitMixin

    arguments = {"device": "cpu", "filter_type": kind, "order": 4}
    stop = {"spatial_stop_frequency": stops[0], "temporal_stop_frequency": stops[1]}
    theirs = FreeInitMixin()._get_free_init_freq_filter((1, 4, 6, 5, 7), **arguments, **stop)
    ours = low_pass((6, 5, 7), kind, spatial=stops[0], temporal=stops[1])
    assert (theirs[0, 0] - ours).abs().max() < 1e-6


def test_mixing_frequencies_equals_diffusers_and_takes_all_or_nothing_at_the_ends():
    from diffusers.pipelines.free_init_utils import FreeInitMixin

    generator = torch.Generator().manual_seed(0)
    low, high = (torch.randn(2, 4, 6, 5, 7, generator=generator) for _ in range(2))
    passing = low_pass((6, 5, 7))
    theirs = FreeInitMixin()._apply_freq_filter(low, high, passing)
    assert (theirs - mix_frequencies(low, high, passing)).abs().max() < 1e-6
    assert (mix_frequencies(low, high, torch.ones(6, 5, 7)) - low).abs().max() < 1e-5
    assert (mix_frequencies(low, high, torch.zeros(6, 5, 7)) - high).abs().max() < 1e-5


@pytest.mark.parametrize(("frames", "stride"), [(16, 4), (31, 4), (40, 16), (64, 3)])
def test_freenoise_repeats_each_windows_noise_in_another_order(frames, stride):
    noise = torch.randn(1, 4, frames, 2, 2, generator=torch.Generator().manual_seed(1))
    result = reschedule(noise, 16, stride, torch.Generator().manual_seed(2))
    assert torch.equal(result[:, :, :16], noise[:, :, :16])
    for start in range(16, frames, stride):
        new, old = result[:, :, start : start + stride], result[:, :, start - 16 : start - 16 + stride]
        found = [any(torch.equal(new[:, :, i], old[:, :, j]) for j in range(stride)) for i in range(new.shape[2])]
        assert all(found)


def test_freenoises_permutation_equals_diffusers_for_the_same_generator():
    from diffusers.models.attention import FreeNoiseTransformerBlock

    block = FreeNoiseTransformerBlock(8, 1, 8, context_length=16, context_stride=4)
    for length, scheme in ((16, "pyramid"), (15, "pyramid"), (16, "flat")):
        assert torch.equal(
            window_weights(length, scheme), torch.tensor(block._get_frame_weights(length, scheme)).float()
        )
    noise = torch.randn(1, 4, 32, 2, 2, generator=torch.Generator().manual_seed(1))
    theirs, generator = noise.clone(), torch.Generator().manual_seed(5)
    for start in range(16, 32, 4):  # the loop of AnimateDiff's "shuffle_context"
        order = torch.arange(start - 16, start - 12)[torch.randperm(4, generator=generator)]
        theirs[:, :, start : start + 4] = theirs[:, :, order]
    assert torch.equal(theirs, reschedule(noise, 16, 4, torch.Generator().manual_seed(5)))


@pytest.mark.parametrize("looped", [False, True])
@pytest.mark.parametrize(
    ("frames", "length", "overlap"), [(16, 16, 4), (17, 16, 4), (64, 16, 12), (33, 8, 0), (100, 24, 5)]
)
def test_windows_cover_every_frame_and_overlap_as_told(frames, length, overlap, looped):
    spans = windows(frames, length, overlap, looped=looped)
    assert {frame for span in spans for frame in span} == set(range(frames))
    assert all(len(span) == min(length, frames) and len(set(span)) == len(span) for span in spans)
    for one, other in itertools.pairwise(spans):
        assert len(set(one) & set(other)) >= overlap
    if looped and frames > length:
        assert len(set(spans[-1]) & set(spans[0])) >= overlap


@pytest.mark.parametrize("looped", [False, True])
def test_from_step_to_step_windows_have_their_borders_elsewhere(looped):
    settings = Windows(16, 8, looped=looped).over(64)
    steps = [settings.spans(step) for step in range(20)]
    for spans in steps:
        assert {frame for span in spans for frame in span} == set(range(64))
        assert all(len(span) == 16 for span in spans)
    first = [span[0] for spans in steps for span in spans if looped or span[0] not in (0, 48)]
    assert max(first.count(frame) for frame in first) <= 4, "a frame that is often a border shows"
    assert settings.spans(0) == windows(64, 16, 8, looped=looped)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_fusing_windows_of_a_frame_wise_function_changes_nothing(fusion):
    x = torch.randn(1, 4, 37, 3, 3)
    spans = windows(37, 16, 6)
    fused = fuse(lambda span: x[:, :, span].square(), spans, window_weights(16, fusion, 6), 37)
    assert (fused - x.square()).abs().max() < 1e-6


def test_one_window_over_all_frames_is_the_prediction_itself():
    x = torch.randn(1, 4, 12, 3, 3)
    assert torch.equal(fuse(lambda span: x[:, :, span] * 2, windows(12, 12, 4), window_weights(12), 12), x * 2)


@pytest.mark.parametrize("per_frame", [False, True])
def test_windows_that_are_denoised_together_come_out_as_one_by_one(monkeypatch, per_frame):
    calls = []

    def unet(x, timesteps, context, fps):
        calls.append(len(x))
        texts = len(context) // len(x)
        level = timesteps[:, None, :, None, None] if timesteps.ndim == 2 else timesteps[:, None, None, None, None]
        told = context.mean(-1).sum(-1)
        told = told[:, None, :, None, None] if context.ndim == 4 else told[:, None, None, None, None]
        seen = x * level + fps[:, None, None, None, None] * x.mean(2, keepdim=True)
        return seen.repeat(texts, 1, 1, 1, 1) + told * x.square().repeat(texts, 1, 1, 1, 1)

    random = torch.Generator().manual_seed(1)
    x, fps = torch.randn(2, 4, 30, 3, 3, generator=random), torch.tensor([1.0, 2.0])
    levels = torch.rand((2, 30) if per_frame else 2, generator=random)
    context = torch.randn((4, 30, 7, 5) if per_frame else (4, 7, 5), generator=random)
    ways = []
    for filled in (1, 3 * 8 * 9, 10**6):
        monkeypatch.setattr(sampling_windows, "FILLED", filled)
        ways.append(Windows(8, 3).over(30).around(unet)(x, levels, context, fps=fps))
    assert sorted(set(calls)) == [2, 6, 12], "one window, three, or all six of them at a time"
    assert (ways[0] - ways[1]).abs().max() < 1e-5 > (ways[0] - ways[2]).abs().max()
    assert ways[0].shape == (4, 4, 30, 3, 3)


@pytest.mark.parametrize("bad", [(16, 8, 8), (16, 0, 0), (0, 8, 2), (16, 8, -1), (7, 8, 2)])
def test_windows_that_cannot_cover_are_refused(bad):
    with pytest.raises(T2VError, match=r"wanted|at least|at most"):
        windows(*bad)


@pytest.mark.parametrize("base", [0.7, 0.3])
def test_videocrafters_scaled_noise_is_an_ordinary_schedule_times_a_factor(base):
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    abar = torch.cumprod(1 - betas, 0)
    scale = torch.cat([torch.linspace(1, base, 400), torch.full((600,), base)])
    ordinary, norm = scaled_schedule(betas, base)
    signal = torch.cumprod(1 - ordinary.double(), 0)
    assert (ordinary > 0).all()
    assert (norm * signal.sqrt() - scale * abar.sqrt()).abs().max() < 1e-5
    assert (norm * (1 - signal).sqrt() - (1 - abar).sqrt()).abs().max() < 1e-5


def test_guidance_of_one_is_the_prompts_prediction_and_rescaling_restores_its_contrast():
    cond, uncond = torch.randn(2, 2, 4, 3, 5, 5)
    assert torch.allclose(classifier_free(cond, uncond, 1.0), cond, atol=1e-6)
    guided = classifier_free(cond, uncond, 9.0)
    assert torch.equal(rescale(guided, cond, 0), guided)
    restored = rescale(guided, cond, 1.0)
    assert torch.allclose(restored.std((1, 2, 3, 4)), cond.std((1, 2, 3, 4)), rtol=1e-4)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_walks_down_to_the_end(name):
    scheduler = build_scheduler(name, CONFIG)
    scheduler.set_timesteps(8)
    assert len(scheduler.timesteps) >= 8
    assert (scheduler.timesteps.diff() <= 0).all()


def test_an_unknown_scheduler_is_refused_with_the_names_that_there_are():
    with pytest.raises(T2VError, match="dpm\\+\\+2m"):
        build_scheduler("dpm3", CONFIG)


def test_a_story_in_seconds_frames_and_per_cent_is_the_same_story():
    spans = ["0-2s: a\n2s-4s, fade 0.5s: b", "0-16: a\n16-32, fade 4: b", "0-50%: a / 50%-100%, fade 12.5%: b"]
    blends = [parse_story(text, 32, 8).blend() for text in spans]
    assert all(torch.equal(blends[0], other) for other in blends[1:])
    assert torch.allclose(blends[0].sum(1), torch.ones(32))
    assert torch.equal(blends[0][:14, 0], torch.ones(14))
    assert torch.equal(blends[0][18:, 1], torch.ones(14))
    assert torch.allclose(blends[0][14:18, 1], torch.tensor([0.125, 0.375, 0.625, 0.875]))


def test_lines_without_spans_share_the_clip():
    assert torch.equal(parse_story("a\nb\nc", 12, 8).blend().argmax(1), torch.arange(3).repeat_interleave(4))


def test_a_frames_text_is_its_scenes_embedding_and_weight_moves_it_from_the_empty_one():
    table = {"": torch.zeros(2, 3), "a": torch.ones(2, 3), "b": -torch.ones(2, 3)}

    def encode(texts):
        return torch.stack([table[text] for text in texts])

    everything = torch.arange(8)[None]
    context = parse_story("0-4: a\n4-8, weight 1.5: b", 8, 8).told(encode).at(everything)[0]
    assert torch.equal(context[:4], torch.ones(4, 2, 3))
    assert torch.equal(context[4:], torch.full((4, 2, 3), -1.5))
    negative = parse_story("0-8: a\n4-8, negative: b", 8, 8).told(encode, negative=True).at(everything)[0]
    assert torch.equal(negative[3:5], torch.stack([table[""], table["b"]]))


def test_frames_that_share_a_text_share_its_embedding_and_the_last_text_holds_on():
    story = parse_story("0-16: a\n16-64: b", 64, 8)
    told = story.told(lambda texts: torch.randn(len(texts), 3, 5, generator=torch.Generator().manual_seed(0)))
    keys = torch.arange(0, 80, 8)[None]
    assert told.at(keys).shape == (1, 10, 3, 5)
    assert torch.equal(told.at(keys)[0, :2], told.at(torch.tensor([[0, 15]])).expand(2, 3, 5))
    assert told.at(torch.tensor([[16, 63, 90]])).shape == (1, 3, 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0-2s: a\n3s-4s: b", "Frame 16"),
        ("0-2s: a\n2s-9s: b", "Scene 2 .* 72"),
        ("2s-1s: a", "Scene 1"),
        ("0-2s: a\nb", "Scene 2 .* no span"),
        ("", "no scene"),
        ("negative: a", "no scene"),
    ],
)
def test_a_story_that_contradicts_itself_is_refused_with_its_scene_and_an_example(text, message):
    with pytest.raises(T2VError, match=message) as error:
        parse_story(text, 32, 8)
    assert "a red circle" in str(error.value) or "make the clip longer" in str(error.value)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_ddim_step_equals_diffusers(kind):
    scheduler = build_scheduler("ddim", {**CONFIG, "prediction_type": kind, "clip_sample": False})
    scheduler.set_timesteps(10)
    assert torch.equal(scheduler.timesteps, ddim_timesteps(10))
    x, prediction = torch.randn(2, 1, 4, 3, 5, 5)
    abar = alphas_cumprod(CONFIG)
    for i, t in enumerate(scheduler.timesteps[:-1]):
        theirs = scheduler.step(prediction, t, x, return_dict=False)[0]
        ours = ddim_step(x, prediction, abar[t].float(), abar[scheduler.timesteps[i + 1]].float(), kind)
        assert (theirs - ours).abs().max() < 1e-5 * theirs.abs().max()


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [1, 7, 20, 50])
def test_timesteps_equal_diffusers_in_every_spacing(spacing, steps):
    config = {**CONFIG, "timestep_spacing": spacing}
    scheduler = build_scheduler("ddim", config)
    scheduler.set_timesteps(steps)
    assert torch.equal(scheduler.timesteps, timesteps_of(config, steps))


def _constant_model(colour, abar, seen=None):
    """Predicts the noise that is left if every clean frame is `colour`."""

    def predict(x, timesteps, numbers):
        if seen is not None:
            seen.append((tuple(x.shape), timesteps, numbers))
        share = abar.float()[timesteps][:, None, :, None, None]
        return (x - share.sqrt() * colour) / (1 - share).sqrt().clamp(min=1e-3)

    return predict


def test_a_pace_is_said_before_every_scene_that_says_none():
    story = parse_story("a red circle moves right / a blue box moves up slowly\nnegative: blurry", 8, 8)
    told = story.at_pace("fast", ("slowly", "fast"))
    assert [scene.text for scene in told.scenes] == ["fast a red circle moves right", "a blue box moves up slowly"]
    assert told.negatives == story.negatives
    assert story.at_pace("", ()) is story


def test_an_endless_video_of_a_model_that_knows_one_picture_is_that_picture():
    abar, colour = alphas_cumprod(CONFIG), torch.randn(1, 4, 1, 3, 3)
    clip, seen = torch.randn(1, 4, 5, 3, 3), []
    frames = Fifo(
        _constant_model(colour, abar, seen),
        clip,
        ddim_timesteps(16),
        abar,
        "epsilon",
        window=8,
        generator=torch.Generator().manual_seed(0),
        final_abar=1.0,
    )
    made = torch.cat(list(itertools.islice(frames, 24)), dim=2)
    assert (made[:, :, 16:] - colour).abs().max() < 1e-4
    assert {shape for shape, _, _ in seen} == {(4, 4, 8, 3, 3)}  # memory does not grow
    for _, levels, numbers in seen:
        assert (levels.diff(dim=1) >= 0).all()
        assert (numbers.diff(dim=1) >= 0).all()


def test_an_endless_video_of_one_level_is_one_ddim_step_a_frame():
    abar, colour = alphas_cumprod(CONFIG), torch.randn(1, 4, 1, 3, 3)
    predict = _constant_model(colour, abar)
    generator = torch.Generator().manual_seed(3)
    frames = Fifo(
        predict, torch.zeros(1, 4, 1, 3, 3), ddim_timesteps(1), abar, "epsilon", window=2, generator=generator
    )
    made = [next(frames) for _ in range(3)]
    again = torch.Generator().manual_seed(3)
    noise = [torch.randn(1, 4, 1, 3, 3, generator=again) for _ in range(4)][1:]
    level = ddim_timesteps(1)
    for frame, x in zip(made, noise, strict=True):
        prediction = predict(x, level[None], None)
        expected = ddim_step(x, prediction, abar[level].float(), abar[:1].float(), "epsilon")
        assert (frame - expected).abs().max() < 1e-6


@pytest.mark.parametrize("when", [0, 3, 20])
def test_an_endless_video_goes_on_from_its_state_bit_for_bit(when):
    abar = alphas_cumprod(CONFIG)
    predict = _constant_model(torch.randn(1, 4, 1, 3, 3), abar)
    clip = torch.randn(1, 4, 5, 3, 3)

    def queue(seed):
        random = torch.Generator().manual_seed(seed)
        return Fifo(predict, clip, ddim_timesteps(8), abar, "epsilon", window=8, generator=random)

    first, second = queue(0), queue(1)
    for _ in range(when):
        next(first)
    second.restore({name: value.clone() for name, value in first.state().items()})
    for _ in range(10):
        assert torch.equal(next(first), next(second))


@pytest.mark.parametrize(("window", "steps"), [(7, 14), (8, 15), (0, 4)])
def test_a_window_that_cannot_slide_over_the_queue_is_refused(window, steps):
    clip, random = torch.zeros(1, 4, 1, 3, 3), torch.Generator()
    with pytest.raises(T2VError, match="an even window is wanted"):
        Fifo(
            lambda *_: None,
            clip,
            ddim_timesteps(steps),
            alphas_cumprod(CONFIG),
            "epsilon",
            window=window,
            generator=random,
        )


@pytest.mark.parametrize(
    ("frames", "window", "levels"),
    [(3376, 16, 3), (1000, 16, 3), (256, 16, 3), (64, 16, 2), (16, 16, 1), (17, 16, 2), (1, 16, 1)],
)
def test_coarse_to_fine_makes_every_frame_once_in_order(frames, window, levels):
    """With key frames that hold their number, and straight lines between two ends, the right answer is known."""
    assert len(strides(frames, window)) == levels
    held, cost = [], 0

    def keys(numbers):
        nonlocal cost
        assert len(numbers) <= window
        cost += len(numbers)
        return torch.tensor(numbers, dtype=torch.float64).view(1, 1, -1, 1, 1)

    def fill(ends, numbers):
        nonlocal cost
        held.append(len(ends))
        (length,) = {len(segment) for segment in numbers}
        assert length <= window
        cost += length * len(numbers)
        step = torch.linspace(0, 1, length, dtype=torch.float64)[None, None, :, None, None]
        return ends[:, :, :1] + (ends[:, :, 1:] - ends[:, :, :1]) * step

    parts = list(coarse_to_fine(frames, strides(frames, window), keys, fill, batch=4))
    assert torch.allclose(torch.cat(parts, dim=2).flatten(), torch.arange(frames, dtype=torch.float64))
    assert max(held, default=0) <= 4
    if frames >= 64:
        assert cost < 1.21 * frames, "a frame of a short film must cost about as much as one of a long film"


@pytest.mark.parametrize("frames", [17, 64, 100, 256, 1000, 3376])
@pytest.mark.parametrize("coarsest", [1, 4, 16, 30, 250, 3376])
def test_key_frames_lie_as_near_as_is_wanted_and_as_one_window_can_hold(frames, coarsest):
    levels, usual = strides(frames, 16, coarsest), strides(frames, 16)
    assert levels[1:] == usual[1:]
    assert all(coarse % fine == 0 and coarse > fine for coarse, fine in itertools.pairwise(levels))
    for coarse, fine in itertools.pairwise(levels):
        assert coarse // fine <= 15
    assert math.ceil((frames - 1) / levels[0]) <= 15
    nearer = levels[0] - levels[1]
    assert levels[0] <= coarsest or math.ceil((frames - 1) / nearer) > 15 or levels == usual
    assert levels[0] <= usual[0]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("clean_levels", [False, True])
def test_known_frames_come_out_as_they_went_in_and_the_others_as_the_model_says(kind, clean_levels):
    abar, colour = alphas_cumprod(CONFIG), torch.randn(1, 4, 1, 3, 3)
    clean = torch.randn(2, 4, 5, 3, 3)
    known = torch.tensor([True, False, False, False, True])

    def predict(x, timesteps):
        share = abar.float()[timesteps][:, None, :, None, None]
        noise = (x - share.sqrt() * colour) / (1 - share).sqrt().clamp(min=1e-2)
        if clean_levels:
            assert (timesteps[:, known] == 0).all()
            assert torch.equal(x[:, :, known], clean[:, :, known])
        return noise if kind == "epsilon" else share.sqrt() * noise - (1 - share).sqrt() * colour

    noise = torch.randn(2, 4, 5, 3, 3)
    result = sample_between(
        predict,
        noise,
        known,
        clean,
        ddim_timesteps(8),
        abar,
        kind,
        clean_levels=clean_levels,
        resample=2,
        generator=torch.Generator().manual_seed(0),
    )
    assert torch.equal(result[:, :, known], clean[:, :, known])
    assert (result[:, :, ~known] - colour).abs().max() < 1e-3
