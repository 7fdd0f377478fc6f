"""The mathematics of sampling, compared with the papers' formulas and with diffusers; and the parsing of stories."""

import pytest
import torch

from t2v_models.errors import T2VError
from t2v_models.families import FAMILIES
from t2v_models.sampling.ddim import ddim_step
from t2v_models.sampling.guidance import classifier_free, motion_guidance, rescale
from t2v_models.sampling.noise import FILTERS, low_pass, mix_frequencies, reschedule
from t2v_models.sampling.scenes import equal_shape
from t2v_models.sampling.schedule import NoiseSchedule
from t2v_models.sampling.schedulers import SCHEDULERS, build_scheduler, set_steps
from t2v_models.sampling.story import parse_story, with_negative
from t2v_models.sampling.timesteps import ddim_timesteps, lcm_timesteps, timesteps_of
from t2v_models.sampling.windows import window_weights

CONFIG = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


@pytest.mark.parametrize("steps", [1, 2, 4, 7, 8, 16, 50])
def test_timesteps_of_distilled_models_equal_diffusers(steps):
    from diffusers import LCMScheduler

    theirs = LCMScheduler()
    theirs.set_timesteps(steps)
    assert torch.equal(lcm_timesteps(steps), theirs.timesteps)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("stops", [(0.25, 0.25), (0.5, 0.3), (0, 0.25)])
def test_free_init_filters_equal_diffusers(name, stops):
    from diffusers.pipelines.free_init_utils import FreeInitMixin

    arguments = {"device": "cpu", "filter_type": name, "order": 4}
    stop = {"spatial_stop_frequency": stops[0], "temporal_stop_frequency": stops[1]}
    theirs = FreeInitMixin()._get_free_init_freq_filter((1, 4, 6, 5, 7), **arguments, **stop)
    ours = low_pass((6, 5, 7), name, spatial=stops[0], temporal=stops[1])
    assert (theirs[0, 0] - ours).abs().max() < 1e-6


def test_mixed_frequencies_equal_diffusers_and_a_filter_of_ones_or_zeros_is_exact():
    from diffusers.pipelines.free_init_utils import FreeInitMixin

    generator = torch.Generator().manual_seed(0)
    low, high = (torch.randn(2, 4, 6, 5, 7, generator=generator) for _ in range(2))
    passing = low_pass((6, 5, 7))
    theirs = FreeInitMixin()._apply_freq_filter(low, high, passing)
    assert (theirs - mix_frequencies(low, high, passing)).abs().max() < 1e-6
    assert (mix_frequencies(low, high, torch.ones(6, 5, 7)) - low).abs().max() < 1e-5
    assert (mix_frequencies(low, high, torch.zeros(6, 5, 7)) - high).abs().max() < 1e-5


@pytest.mark.parametrize(("frames", "stride"), [(16, 4), (31, 4), (40, 16), (64, 3)])
def test_free_noise_shuffles_the_noise_of_the_previous_window(frames, stride):
    noise = torch.randn(1, 4, frames, 2, 2, generator=torch.Generator().manual_seed(1))
    result = reschedule(noise, 16, stride, torch.Generator().manual_seed(2))
    assert torch.equal(result[:, :, :16], noise[:, :, :16])
    for start in range(16, frames, stride):
        new, old = result[:, :, start : start + stride], result[:, :, start - 16 : start - 16 + stride]
        found = [any(torch.equal(new[:, :, i], old[:, :, j]) for j in range(stride)) for i in range(new.shape[2])]
        assert all(found)


def test_free_noise_permutation_equals_diffusers():
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


@pytest.mark.parametrize("base", [0.7, 0.3])
def test_scaled_schedule_is_a_variance_preserving_one_times_a_factor(base):
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    abar = torch.cumprod(1 - betas, 0)
    scale = torch.cat([torch.linspace(1, base, 400), torch.full((600,), base)])
    config, norm = NoiseSchedule.from_config(CONFIG, scale_base=base).variance_preserving()
    ordinary = torch.tensor(config["trained_betas"])
    signal = torch.cumprod(1 - ordinary.double(), 0)
    assert (ordinary > 0).all()
    assert (norm * signal.sqrt() - scale * abar.sqrt()).abs().max() < 1e-5
    assert (norm * (1 - signal).sqrt() - (1 - abar).sqrt()).abs().max() < 1e-5


def test_guidance_scale_1_returns_the_conditional_prediction_and_rescale_restores_its_deviation():
    cond, uncond = torch.randn(2, 2, 4, 3, 5, 5)
    assert torch.allclose(classifier_free(cond, uncond, 1.0), cond, atol=1e-6)
    guided = classifier_free(cond, uncond, 9.0)
    assert torch.equal(rescale(guided, cond, 0), guided)
    restored = rescale(guided, cond, 1.0)
    assert torch.allclose(restored.std((1, 2, 3, 4)), cond.std((1, 2, 3, 4)), rtol=1e-4)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_timesteps_of_every_scheduler_never_rise(name):
    scheduler = build_scheduler(name, CONFIG)
    scheduler.set_timesteps(8)
    assert len(scheduler.timesteps) >= 8
    assert (scheduler.timesteps.diff() <= 0).all()


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_thousand_steps_give_finite_latents_or_an_error_at_the_start(name, spacing):
    for steps in (998, 1000):
        scheduler = build_scheduler(name, {**CONFIG, "timestep_spacing": spacing})
        try:
            set_steps(scheduler, name, steps, "cpu")
        except T2VError:
            continue
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        x = torch.ones(1, 4, 1, 1)
        for t in scheduler.timesteps:
            x = scheduler.step(0.1 * scheduler.scale_model_input(x, t), t, x).prev_sample
        assert torch.isfinite(x).all()


@pytest.mark.parametrize("steps", [61, 103, 121, 122, 201, 206, 217])
def test_trailing_spacing_gives_the_wanted_number_of_steps(steps):
    config = {**CONFIG, "timestep_spacing": "trailing"}
    scheduler = build_scheduler("ddim", config)
    set_steps(scheduler, "ddim", steps, "cpu")
    assert len(scheduler.timesteps) == steps
    assert scheduler.timesteps.min() >= 0
    assert torch.equal(scheduler.timesteps, timesteps_of(config, steps))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_has_the_models_alphas_cumprod_and_accepts_our_options_without_a_warning(name, caplog):
    import diffusers.utils.logging

    diffusers.utils.logging.enable_propagation()
    config = FAMILIES["tf-t2v"].scheduler_config() | {"scale_base": 0.7, "even_steps": True}
    scheduler = build_scheduler(name, config)
    diffusers.utils.logging.disable_propagation()
    assert not [record for record in caplog.records if "scale_base" in record.getMessage()]
    assert scheduler.config["even_steps"] is True
    wanted = NoiseSchedule.from_config(config).alphas_cumprod
    assert torch.allclose(scheduler.alphas_cumprod.double(), wanted, rtol=1e-3, atol=1e-6)


def test_unknown_scheduler_is_refused_with_the_known_names():
    with pytest.raises(T2VError, match="dpm\\+\\+2m"):
        build_scheduler("dpm3", CONFIG)


def test_spans_in_seconds_frames_and_per_cent_are_equal():
    spans = ["0-2s: a\n2s-4s, fade 0.5s: b", "0-16: a\n16-32, fade 4: b", "0-50%: a / 50%-100%, fade 12.5%: b"]
    blends = [parse_story(text, 32, 8).blend() for text in spans]
    assert all(torch.equal(blends[0], other) for other in blends[1:])
    assert torch.allclose(blends[0].sum(1), torch.ones(32))
    assert torch.equal(blends[0][:14, 0], torch.ones(14))
    assert torch.equal(blends[0][18:, 1], torch.ones(14))
    assert torch.allclose(blends[0][14:18, 1], torch.tensor([0.125, 0.375, 0.625, 0.875]))


def test_options_may_stand_in_any_order_with_any_dash_or_colon():
    wanted = parse_story("0-2s: a\n2s-4s, fade 0.5s: b\n50%-100%, negative: c", 32, 8)
    for text in (
        "0-2s: a\nfade 0.5s, 2s-4s: b\nnegative, 50%-100%: c",
        "0—2s: a\n2s−4s, fade 0.5s: b\n50%‑100%, negative: c",
        "0-2s：a\n2s-4s, fade 0.5s： b\n50%-100%, negative：c",
    ):
        assert parse_story(text, 32, 8) == wanted


@pytest.mark.parametrize(
    "text",
    ["0-48f: a\n2s-4s, fade 0.5s: b", "0-49.9%: a\n50%-100%, fade 12.5%: b", "0-47f: a\n48-96f, fade 12: b"],
)
def test_fade_works_between_scenes_that_almost_meet(text):
    blend = parse_story(text, 96, 23.976).blend()[:, 1]
    assert (blend.diff() >= 0).all()
    assert blend.diff().max() < 0.1
    assert blend[47] == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("text", ["2-3 friends walk on a beach", "3-5 sheep", "1920-1930s street scene", "1-2 fish"])
def test_prompt_may_begin_with_numbers(text):
    assert [scene.text for scene in parse_story(text, 32, 8).scenes] == [text]


def test_fade_changes_only_the_scene_before_it():
    blend = parse_story("0-4s: a\n4s-5s: b\n5s-8s, fade 2s: c", 64, 8).blend()
    assert torch.equal(blend[:32, 0], torch.ones(32))
    assert not blend[32:, 0].any()
    contexts = parse_story("a\n0-2s, negative: x\n3s-8s, fade 3s, negative: y", 64, 8).encode(
        lambda texts: torch.eye(len(texts))[:, None], negative=True
    )
    x = contexts.blend[:, 1]
    assert torch.equal(x, (torch.arange(64) < 16).float() * (1 - contexts.blend[:, 2]))


def test_lines_without_spans_have_equal_parts_of_the_clip():
    assert torch.equal(parse_story("a\nb\nc", 12, 8).blend().argmax(1), torch.arange(3).repeat_interleave(4))


def test_frames_have_the_embedding_of_their_scene_and_weight_scales_its_distance_to_the_empty_text():
    table = {"": torch.zeros(2, 3), "a": torch.ones(2, 3), "b": -torch.ones(2, 3)}

    def encode(texts):
        return torch.stack([table[text] for text in texts])

    everything = torch.arange(8)[None]
    context = parse_story("0-4: a\n4-8, weight 1.5: b", 8, 8).encode(encode).at(everything)[0]
    assert torch.equal(context[:4], torch.ones(4, 2, 3))
    assert torch.equal(context[4:], torch.full((4, 2, 3), -1.5))
    negative = parse_story("0-8: a\n4-8, negative: b", 8, 8).encode(encode, negative=True).at(everything)[0]
    assert torch.equal(negative[3:5], torch.stack([table[""], table["b"]]))


def test_frames_of_one_scene_have_one_embedding_and_the_last_one_continues_after_the_end():
    story = parse_story("0-16: a\n16-64: b", 64, 8)
    contexts = story.encode(lambda texts: torch.randn(len(texts), 3, 5, generator=torch.Generator().manual_seed(0)))
    keys = torch.arange(0, 80, 8)[None]
    assert contexts.at(keys).shape == (1, 10, 3, 5)
    assert torch.equal(contexts.at(keys)[0, :2], contexts.at(torch.tensor([[0, 15]])).expand(2, 3, 5))
    assert contexts.at(torch.tensor([[16, 63, 90]])).shape == (1, 3, 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0-2s: a\n3s-4s: b", "Frame 16"),
        ("0-2s: a\n2s-9s: b", "Line 2 .* 72"),
        ("2s-1s: a", "Line 1"),
        ("0-2s: a\nb", "Line 2 .* no span"),
        ("negative: x\na\n0-10: b", "Line 2 .* no span"),
        ("", "no scene"),
        ("negative: a", "no scene"),
        ("0-1s a red circle\n1s-4s a blue square", "Line 1 .* no colon"),
    ],
)
def test_invalid_story_is_refused_with_its_line_and_an_example(text, message):
    with pytest.raises(T2VError, match=message) as error:
        parse_story(text, 32, 8)
    assert "a red circle" in str(error.value) or "make the clip longer" in str(error.value)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_ddim_step_equals_diffusers(prediction_type):
    config = {**CONFIG, "prediction_type": prediction_type, "clip_sample": False}
    scheduler, schedule = build_scheduler("ddim", config), NoiseSchedule.from_config(config)
    scheduler.set_timesteps(10)
    assert torch.equal(scheduler.timesteps, ddim_timesteps(10))
    x, prediction = torch.randn(2, 1, 4, 3, 5, 5)
    for i, t in enumerate(scheduler.timesteps[:-1]):
        theirs = scheduler.step(prediction, t, x, return_dict=False)[0]
        ours = ddim_step(x, prediction, schedule, t, scheduler.timesteps[i + 1])
        assert (theirs - ours).abs().max() < 1e-5 * theirs.abs().max()


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [1, 7, 20, 50])
def test_timesteps_equal_diffusers_in_every_spacing(spacing, steps):
    config = {**CONFIG, "timestep_spacing": spacing}
    scheduler = build_scheduler("ddim", config)
    scheduler.set_timesteps(steps)
    assert torch.equal(scheduler.timesteps, timesteps_of(config, steps))


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("schedule", ["scaled_linear", "linear", "squaredcos_cap_v2"])
def test_noise_schedules_equal_diffusers(schedule, zero):
    config = {**CONFIG, "beta_schedule": schedule, "rescale_betas_zero_snr": zero}
    theirs = build_scheduler("ddim", config).alphas_cumprod
    assert (NoiseSchedule.from_config(config).alphas_cumprod - theirs).abs().max() < 1e-6


@pytest.mark.parametrize("family", ["t2v-turbo-ms", "t2v-turbo-vc2", "videolcm"])
def test_distilled_models_use_the_timesteps_of_their_training(family):
    config = FAMILIES[family].scheduler_config()
    for steps in (4, 8, 16):
        scheduler = build_scheduler("lcm", config)
        set_steps(scheduler, "lcm", steps, "cpu")
        assert torch.equal(scheduler.timesteps, timesteps_of(config, steps))
    with pytest.raises(T2VError, match="cannot take 300 steps"):
        set_steps(build_scheduler("lcm", config), "lcm", 300, "cpu")


@pytest.mark.parametrize(("family", "ends"), [("t2v-turbo-ms", (279, 99)), ("t2v-turbo-v2", (249, 99))])
def test_t2v_turbo_uses_every_nth_timestep_of_its_distillation(family, ends):
    config = FAMILIES[family].scheduler_config()
    for steps, end in zip((4, 16), ends, strict=True):
        count = config["original_inference_steps"]
        distilled = torch.arange(1, count + 1) * (1000 // count) - 1
        # T2V-Turbo's scheduler: lcm_origin_timesteps[::-skipping_step][:n]
        theirs = distilled.flip(0)[:: count // steps][:steps]
        assert torch.equal(timesteps_of(config, steps), theirs)
        assert theirs[-1] == end


def test_motion_guidance_is_on_in_the_noisy_half():
    assert motion_guidance(torch.tensor([999, 500, 499, 0])).tolist() == pytest.approx([0.05, 0.05, 0, 0])
    assert motion_guidance(torch.tensor([[0, 999], [0, 300]]), 0.1).tolist() == pytest.approx([0.1, 0])


def test_repeated_tokens_do_not_change_attention():
    generator = torch.Generator().manual_seed(0)
    short, long = torch.randn(1, 3, 8, generator=generator), torch.randn(1, 2, 4, 8, generator=generator)
    one, other = equal_shape(short, long, 2)
    assert one.shape == other.shape == (1, 2, 12, 8)
    q = torch.randn(1, 5, 8, generator=generator)
    attend = torch.nn.functional.scaled_dot_product_attention
    assert (attend(q, one[:, 1], one[:, 1]) - attend(q, short, short)).abs().max() < 1e-6
    assert (attend(q, other[:, 1], other[:, 1]) - attend(q, long[:, 1], long[:, 1])).abs().max() < 1e-6


def test_speed_word_is_added_to_scenes_without_one():
    story = parse_story("a red circle moves right / a blue box moves up slowly\nnegative: blurry", 8, 8)
    faster = story.with_speed("fast", ("slowly", "fast"))
    assert [scene.text for scene in faster.scenes] == ["fast a red circle moves right", "a blue box moves up slowly"]
    assert faster.negatives == story.negatives
    assert story.with_speed("", ()) is story


def test_speed_word_of_a_scene_is_kept():
    known = ("slowly", "fast")
    story = parse_story("0-50%: a star moves up slowly. / 50%-100%: a star moves up", 8, 8).with_speed("fast", known)
    assert [scene.text for scene in story.scenes] == ["a star moves up slowly.", "fast a star moves up"]


def test_negative_scene_fades_in():
    story = parse_story("a\n4-8f, fade 4f, negative: b", 8, 8)
    contexts = story.encode(lambda texts: torch.arange(float(len(texts)))[:, None, None], negative=True)
    shares = contexts.blend[:, 1]
    assert torch.allclose(shares, torch.tensor([0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1]))


def test_negative_prompt_never_becomes_a_scene():
    story = parse_story(with_negative("a red circle", "blurry\n0-50%: dark / 50%-100%: red"), 8, 8)
    assert [scene.text for scene in story.scenes] == ["a red circle"]
    assert len(story.negatives) == 1
    assert with_negative("a", " ") == "a"
