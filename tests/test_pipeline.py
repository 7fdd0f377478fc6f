"""Our pipeline against diffusers' own on the same small model, and what must hold for any model."""

import warnings
from types import SimpleNamespace

import pytest
import torch

from t2v_models import Film, load_pipeline
from t2v_models.errors import T2VError
from t2v_models.families import FAMILIES
from t2v_models.pipeline import Pipeline
from t2v_models.sampling.schedulers import SCHEDULERS, build_scheduler
from t2v_models.sampling.windows import Windows

from .support.model_folder import write_model_folder

NOT_USED = "The negative prompt is not used: a guidance scale of 1 switches guidance off."
CALL = {"frames": 3, "width": 64, "height": 48, "steps": 4, "guidance_scale": 5.0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {kind: write_model_folder(root / kind, prediction_type=kind) for kind in ("epsilon", "v_prediction")}


@pytest.fixture(scope="module")
def pipeline(folders):
    return load_pipeline(folders["v_prediction"])


@pytest.fixture(scope="module")
def diffusers_pipelines(folders):
    from diffusers import TextToVideoSDPipeline

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {kind: TextToVideoSDPipeline.from_pretrained(folder) for kind, folder in folders.items()}


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("scheduler", [name for name in SCHEDULERS if name != "lcm"])
def test_latents_and_frames_equal_diffusers_for_the_same_seed(folders, diffusers_pipelines, kind, scheduler):
    theirs = diffusers_pipelines[kind]
    ours = load_pipeline(folders[kind])
    theirs.scheduler = build_scheduler(scheduler, ours.schedule.config)
    theirs.set_progress_bar_config(disable=True)
    call = {"num_frames": 3, "width": 64, "height": 48, "num_inference_steps": 4, "guidance_scale": 5.0}
    prompts = ("a red circle moves right", "blue")
    latents = theirs(
        *prompts[:1],
        negative_prompt=prompts[1],
        output_type="latent",
        **call,
        generator=torch.Generator().manual_seed(7),
    ).frames
    frames = theirs(
        *prompts[:1], negative_prompt=prompts[1], output_type="pt", **call, generator=torch.Generator().manual_seed(7)
    ).frames
    video = ours(*prompts, **CALL, scheduler=scheduler, seed=7)
    assert (video.latents - latents).abs().max() / latents.std().clamp(min=1) < 1e-4
    assert (video.frames - frames.movedim(2, -1)).abs().max() < 1 / 255


def test_guidance_of_one_needs_no_negative_prompt_and_equals_diffusers(folders, diffusers_pipelines):
    theirs = diffusers_pipelines["epsilon"]
    theirs.scheduler = build_scheduler("ddim", load_pipeline(folders["epsilon"]).schedule.config)
    latents = theirs(
        "a blue square",
        num_frames=2,
        width=64,
        height=64,
        num_inference_steps=3,
        guidance_scale=1.0,
        output_type="latent",
        generator=torch.Generator().manual_seed(1),
    ).frames
    call = {**CALL, "frames": 2, "height": 64, "steps": 3, "guidance_scale": 1.0}
    ours = load_pipeline(folders["epsilon"])("a blue square", **call, seed=1, decode=False)
    assert (ours.latents - latents).abs().max() < 1e-4
    assert ours.frames.numel() == 0


@pytest.mark.parametrize("kind", ["clip", "film"])
def test_unused_negative_prompt_is_logged(pipeline, caplog, kind):
    def make(text, negative, **call):
        if kind == "film":
            return list(Film(pipeline, text, negative, **call).latents())
        return pipeline(
            "" if negative == "" else text, negative, story=None if negative else text, decode=False, **call
        )

    for scale, logged in ((1.0, 1), (5.0, 0)):
        for texts in (("a", "blue"), ("a\nnegative: blue", "")):
            caplog.clear()
            make(*texts, **{**CALL, "steps": 1, "guidance_scale": scale})
            assert [record.getMessage() for record in caplog.records].count(NOT_USED) == logged


def test_prompt_and_story_together_are_refused(pipeline):
    for prompt in ("a red circle", ["", "a"]):
        with pytest.raises(T2VError, match="A prompt and a story are given"):
            pipeline(prompt, story="0-50%: a / 50%-100%: b", **CALL)


@pytest.mark.parametrize("family", ["zeroscope-v2-xl", "zeroscope-v2-576w"])
def test_model_that_refines_videos_logs_that_none_is_given(pipeline, monkeypatch, caplog, family):
    monkeypatch.setattr(pipeline, "family", FAMILIES[family])
    call = {"steps": 2, "decode": False}
    pipeline("a", frames=3, width=64, height=48, **call)
    said = sum("from noise" in record.getMessage() for record in caplog.records)
    assert said == (family == "zeroscope-v2-xl")
    pipeline("a", video=torch.rand(1, 3, 48, 64, 3), strength=0.5, **call)
    assert sum("from noise" in record.getMessage() for record in caplog.records) == said


@pytest.mark.parametrize("scheduler", ["ddim", "euler-a", "dpm++2m"])
def test_two_prompts_in_one_call_equal_two_calls(pipeline, scheduler):
    together = pipeline(["a red circle", "a blue square"], **CALL, scheduler=scheduler, seed=3)
    apart = [
        pipeline("a red circle", **CALL, scheduler=scheduler, seed=3),
        pipeline("a blue square", **CALL, scheduler=scheduler, seed=4),
    ]
    assert (together.latents - torch.cat([each.latents for each in apart])).abs().max() < 1e-4


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_prompts_of_different_length_equal_separate_calls(pipeline, guidance):
    prompts, call = ["a red circle", "a red circle " * 40], {**CALL, "guidance_scale": guidance, "decode": False}
    together = pipeline(prompts, **call, seed=3).latents
    for i, prompt in enumerate(prompts):
        alone = pipeline(prompt, **call, seed=3 + i).latents
        assert (together[i : i + 1] - alone).abs().max() < 1e-4


def test_seed_decides_the_clip(pipeline):
    one, again, other = (pipeline("a red circle", **CALL, seed=seed, decode=False).latents for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.allclose(one, other, atol=0.1)


def test_long_prompt_fills_several_token_windows(pipeline):
    short, long = pipeline.encode_text(["a red circle", "a red circle " * 40])
    assert short.shape == long.shape == (154, 32)
    assert torch.equal(pipeline.encode_text(["a red circle"])[0], short[:77])


def test_distance_from_the_video_grows_with_the_strength(pipeline):
    video = torch.rand(1, 3, 48, 64, 3, generator=torch.Generator().manual_seed(2))
    clean = pipeline.encode_video(video)
    call = {"steps": 10, "guidance_scale": 1.0, "decode": False, "video": video}
    distances = [
        (pipeline("a", strength=strength, **call).latents - clean).square().mean() for strength in (0.1, 0.5, 1.0)
    ]
    assert distances[0] < distances[1] < distances[2]


@pytest.mark.slow
def test_all_of_many_steps_are_taken_where_two_round_to_one_timestep(pipeline):
    seen = []
    call = {"frames": 1, "width": 64, "height": 64, "steps": 900, "guidance_scale": 1.0, "decode": False}
    pipeline("a", **call, scheduler="dpm++2m-karras", progress=lambda done, total: seen.append(done))
    assert seen == list(range(1, 901))


def test_progress_counts_the_steps_and_may_cancel(pipeline):
    seen = []
    pipeline("a", **CALL, progress=lambda done, total: seen.append((done, total)), decode=False)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]

    def cancel(done, total):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        pipeline("a", **CALL, progress=cancel)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 60}, "width is 60: a multiple of 8"),
        ({"height": 0}, "height is 0"),
        ({"frames": 0}, "frames is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"fps": 0}, "frame rate 0"),
        ({"scheduler": "dpm3"}, "not known"),
        ({"scheduler": "ddim", "steps": 1000}, "cannot take 1000 steps"),
        ({"strength": 0.0}, "strength"),
        ({"latents": torch.zeros(1, 4, 3, 8, 8)}, "latents has shape"),
        ({"video": torch.zeros(3, 48, 64, 3)}, "video has shape"),
        ({"negative_prompt": ["a", "b"]}, "2 negative prompts"),
    ],
)
def test_wrong_value_is_refused_with_the_wanted_one(pipeline, wrong, message):
    with pytest.raises(T2VError, match=message):
        pipeline("a", **{**CALL, **wrong})


@pytest.mark.parametrize(
    ("dtype", "remedy"),
    [
        (torch.float16, r"float16.*dtype=torch\.float32"),
        (torch.float32, r"float32.*leave LoRAs out.*lower the guidance scale"),
        (torch.bfloat16, r"bfloat16.*dtype=torch\.float32.*leave LoRAs out"),
    ],
)
def test_nan_is_reported_with_the_dtype_and_the_remedy(dtype, remedy):
    model = SimpleNamespace(unet=SimpleNamespace(dtype=dtype))
    for value in ("nan", "inf", "-inf"):
        with pytest.raises(T2VError, match=remedy) as error:
            Pipeline.check_finite(model, torch.full((1, 4, 3, 6, 8), float(value)))
        assert ("fp32" in str(error.value)) == (dtype != torch.float32)


def test_weights_of_nan_end_in_that_sentence(pipeline, monkeypatch):
    weight = next(pipeline.unet.parameters())
    monkeypatch.setattr(weight, "data", torch.full_like(weight, float("nan")))
    with pytest.raises(T2VError, match="leave LoRAs out, try another model file"):
        pipeline("a", **CALL)


def test_story_of_one_scene_equals_its_prompt(pipeline):
    plain = pipeline("a red circle", "blue", **CALL, decode=False).latents
    video = pipeline(story="0-100%: a red circle / negative: blue", **CALL, decode=False).latents
    assert (plain - video).abs().max() < 1e-4


@pytest.mark.parametrize("longer", [0, 1])
def test_story_and_its_negative_lines_may_differ_in_length(pipeline, longer):
    texts = ["a red circle", "a red circle"]
    texts[longer] = "blue " * 100
    plain = pipeline(*texts, **CALL, decode=False).latents
    video = pipeline(story=f"0-100%: {texts[0]}", negative_prompt=texts[1], **CALL, decode=False).latents
    assert video.shape == plain.shape
    assert torch.isfinite(video).all()
    texts[1 - longer] = "blue " * 100
    assert not torch.allclose(video, pipeline(*texts, **CALL, decode=False).latents, atol=1e-3)


def test_second_scene_of_a_story_changes_its_own_frames_most(pipeline):
    call = {**CALL, "frames": 8, "steps": 1, "guidance_scale": 1.0, "decode": False}
    one = pipeline(story="0-4: a red circle / 4-8: a red circle", **call).latents
    other = pipeline(story="0-4: a red circle / 4-8: a blue square", **call).latents
    change = (one - other).square().mean((0, 1, 3, 4))
    assert change[4:].mean() > 1.3 * change[:4].mean() > 0


@pytest.mark.parametrize("free_noise", [False, True])
def test_one_window_over_all_frames_changes_nothing(pipeline, free_noise):
    windows = Windows(length=3, overlap=1, free_noise=free_noise)
    plain = pipeline("a red circle", **CALL, decode=False).latents
    assert (pipeline("a red circle", **CALL, windows=windows, decode=False).latents - plain).abs().max() < 1e-6


@pytest.mark.parametrize("windows", [Windows(4, 2), Windows(4, 2, looped=True), Windows(4, 2, free_noise=True)])
def test_windows_make_videos_of_any_length(pipeline, windows):
    video = pipeline("a red circle", **{**CALL, "frames": 11}, windows=windows)
    assert video.frames.shape == (1, 11, 48, 64, 3)
    assert torch.isfinite(video.latents).all()


def test_loop_has_no_first_frame(pipeline):
    """Rolling the noise of a looped clip by a whole window rolls the clip."""
    noise = torch.randn(1, 4, 8, 6, 8, generator=torch.Generator().manual_seed(4))
    call = {**CALL, "frames": 8, "steps": 2, "decode": False, "windows": Windows(4, 2, looped=True)}
    clip = pipeline("a red circle", **call, latents=noise).latents
    rolled = pipeline("a red circle", **call, latents=noise.roll(2, dims=2)).latents
    assert (clip.roll(2, dims=2) - rolled).abs().max() < 1e-4
