"""Videos of pictures: what a picture, its strength, its scale and its absence must do to a clip, whatever the weights."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from t2v_models import Film, load_pipeline
from t2v_models.__main__ import main
from t2v_models.cli.pictures import read_picture
from t2v_models.errors import T2VError
from t2v_models.families import FAMILIES
from t2v_models.image.conditioning import ImageInputs, ImageModel, warn_of_image_settings
from t2v_models.image.encoder import ImageEncoder
from t2v_models.pipeline import Pipeline
from t2v_models.sampling.windows import Windows
from tests.references.image_runs import picture
from tests.references.parity import difference
from tests.support.fake_cuda import FakeCuda
from tests.support.image_models import write_model, write_pruned

pytestmark = pytest.mark.slow

SIZE = {"width": 64, "height": 32, "frames": 16, "steps": 2, "eta": 0.0, "decode": False}
FIRST, LAST = picture("first"), picture("last")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Pipelines of small image-to-video models, by family."""

    @cache
    def load(family: str) -> Pipeline:
        return load_pipeline(write_model(tmp_path_factory.mktemp(family), family), family=family)

    return load


def latents(pipeline: Pipeline, prompt: str | list[str] = "red circle", **options) -> Tensor:
    return pipeline(prompt, **{**SIZE, "image": FIRST, **options}).latents


@pytest.fixture
def calls(monkeypatch):
    """The numbers of videos that the UNet predicted in each call, guidance's branches counted."""

    def count(pipeline: Pipeline) -> list[int]:
        seen: list[int] = []
        forward = type(pipeline.unet).forward

        def spy(self, x, timesteps, context, **given):
            seen.append(len(context))
            return forward(self, x, timesteps, context, **given)

        monkeypatch.setattr(type(pipeline.unet), "forward", spy)
        return seen

    return count


FAMILY_NAMES = ["videocrafter1-i2v", "dynamicrafter-256", "dynamicrafter-512"]


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_the_picture_decides_the_video_and_leaves_no_trace_in_the_next(model, family):
    pipeline = model(family)
    one = latents(pipeline)
    other = latents(pipeline, image=LAST)
    assert difference(other, one) > 1e-3
    assert torch.equal(latents(pipeline), one)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_batch_of_two_pictures_equals_two_videos(model, family):
    pipeline = model(family)
    both = latents(pipeline, ["red circle", "blue square"], image=[FIRST, LAST], seed=3)
    one = latents(pipeline, "red circle", seed=3)
    two = latents(pipeline, "blue square", image=LAST, seed=4)
    assert difference(both, torch.cat([one, two])) < 1e-4


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_strength_0_is_the_text_alone(model, family, monkeypatch):
    pipeline = model(family)
    nothing = latents(pipeline, image_strength=0)
    assert torch.equal(latents(pipeline, image=LAST, image_strength=0), nothing)
    assert torch.equal(latents(pipeline, image_strength=0, image_guidance_scale=3), nothing)

    def without(*_, **__):
        return ImageInputs(None, None, torch.zeros(1, 4, 16, 4, 8) if pipeline.config.in_channels == 8 else None)

    weak = latents(pipeline, image_strength=0.1)
    monkeypatch.setattr(pipeline.image_model, "inputs", without)
    assert torch.equal(latents(pipeline), nothing)
    assert difference(weak, nothing) > 0


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_the_grey_picture_is_the_unconditional_branch(model, family):
    """With the prompt as its own negative, both branches are equal, and guidance has nothing to amplify."""
    pipeline = model(family)
    grey = torch.full((32, 32, 3), 0.5)
    same = {"image": grey, "negative_prompt": "red circle", "guidance_rescale": 0.0}
    assert difference(latents(pipeline, **same, guidance_scale=12), latents(pipeline, **same, guidance_scale=1)) < 1e-4
    same["image"] = FIRST
    assert difference(latents(pipeline, **same, guidance_scale=12), latents(pipeline, **same, guidance_scale=1)) > 1e-3


def test_guidance_asks_the_model_no_more_than_it_must(model, calls):
    pipeline = model("dynamicrafter-512")
    seen = calls(pipeline)
    for options, branches in (
        ({"guidance_scale": 1}, 1),
        ({"guidance_scale": 1, "image_guidance_scale": 1}, 1),
        ({"guidance_scale": 7.5}, 2),
        ({"guidance_scale": 7.5, "image_guidance_scale": 7.5}, 2),
        ({"guidance_scale": 7.5, "image_guidance_scale": 3}, 3),
        ({"guidance_scale": 1, "image_guidance_scale": 3}, 3),
        ({"guidance_scale": 7.5, "image_guidance_scale": 3, "image_strength": 0}, 2),
    ):
        seen.clear()
        latents(pipeline, **options)
        assert seen == [branches] * SIZE["steps"], options


def test_a_scale_of_the_picture_next_to_that_of_the_text_gives_nearly_the_same(model):
    pipeline = model("dynamicrafter-512")
    assert difference(latents(pipeline, image_guidance_scale=7.5 + 1e-5), latents(pipeline)) < 1e-4
    assert difference(latents(pipeline, image_guidance_scale=1), latents(pipeline)) > 1e-3


@pytest.mark.parametrize("family", [*FAMILY_NAMES, "dynamicrafter-512-interp"])
def test_windows_over_exactly_the_models_length_equal_none(model, family):
    pipeline = model(family)
    assert torch.equal(latents(pipeline, windows=Windows(16, 8)), latents(pipeline))


@pytest.mark.parametrize("windows", [Windows(16, 8), Windows(16, 8, free_noise=True), Windows(16, 4, looped=True)])
def test_long_videos_are_made_in_windows(model, windows):
    pipeline = model("dynamicrafter-512")
    long = latents(pipeline, frames=32, windows=windows)
    assert long.shape == (1, 4, 32, 4, 8)
    assert torch.isfinite(long).all()
    assert difference(latents(pipeline, frames=32, windows=windows, image=LAST), long) > 1e-3


def test_64_frames_are_made_in_windows(model):
    long = latents(model("dynamicrafter-256"), frames=64, windows=Windows(16, 8), steps=1)
    assert long.shape[2] == 64
    assert torch.isfinite(long).all()


def test_both_ends_decide_the_video_of_an_interpolation_model(model):
    pipeline = model("dynamicrafter-512-interp")
    pair = latents(pipeline, end_image=LAST)
    assert difference(latents(pipeline, end_image=FIRST), pair) > 1e-3
    assert torch.equal(latents(pipeline, end_image=FIRST), latents(pipeline))


def test_a_loop_leaves_out_the_frame_that_repeats_its_first(model):
    pipeline = model("dynamicrafter-512-loop")
    video = pipeline("", **{**SIZE, "image": FIRST, "decode": True})
    assert video.latents.shape[2] == 15
    assert video.frames.shape == (1, 15, 32, 64, 3)
    assert latents(pipeline, end_image=LAST).shape[2] == 16, "a video that ends with another picture is no loop"


def test_the_motion_decides_and_the_rate_of_the_file_does_not(model):
    pipeline = model("dynamicrafter-512")
    assert torch.equal(latents(pipeline, fps=12), latents(pipeline))
    assert difference(latents(pipeline, motion=15), latents(pipeline)) > 1e-4
    assert torch.equal(latents(pipeline, motion=24), latents(pipeline))


def test_a_portrait_is_fitted_to_a_landscape_and_what_is_lost_is_said(model, caplog):
    pipeline = model("dynamicrafter-256")
    portrait = picture("first", 64, 24)
    with caplog.at_level(logging.INFO):
        video = {fit: latents(pipeline, image=portrait, image_fit=fit) for fit in ("crop", "pad", "stretch")}
    assert all(each.shape == (1, 4, 16, 4, 8) for each in video.values())
    assert difference(video["pad"], video["crop"]) > 1e-4
    for said in ("is cut to 64x32", "is padded to 64x32", "is stretched to 64x32"):
        assert said in caplog.text


def test_settings_that_the_model_was_not_trained_for_are_warned_of(caplog):
    family = FAMILIES["dynamicrafter-512"]
    warn_of_image_settings(family, 16, 24, ends=False)
    assert not caplog.records
    warn_of_image_settings(family, 12, 24, ends=False)
    assert "falls apart below" in caplog.messages[-1]
    warn_of_image_settings(family, 16, 40, ends=False)
    assert "trained with 15 to 30 (frames per second: smaller is more motion)" in caplog.messages[-1]
    warn_of_image_settings(FAMILIES["dynamicrafter-256"], 16, 8, ends=False)
    assert "trained with 1 to 6 (frame stride: larger is more motion)" in caplog.messages[-1]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"image": None}, "makes videos of a picture: give it one by image="),
        ({"image": None, "end_image": FIRST}, "give it one by image="),
        ({"end_image": LAST}, "first picture only"),
        ({"image": np.zeros((9, 12, 4), np.uint8)}, "RGBA"),
        ({"image": [FIRST, LAST]}, "holds 2 pictures: one is wanted"),
        ({"image": np.zeros((1, 1, 3), np.uint8)}, "1x1 pixels"),
        ({"image": np.zeros((8, 20_000, 3), np.uint8)}, "20000x8 pixels"),
        ({"image_fit": "squeeze"}, "image_fit is 'squeeze': choose one of crop, pad, stretch"),
        ({"image_strength": 2}, "image_strength is 2"),
        ({"motion": "fast"}, "motion is 'fast'"),
        ({"motion": 0}, "above 0"),
        ({"image_noise": torch.zeros(1, 4, 2, 4, 8)}, "image_noise has shape"),
        ({"image_method": "hold"}, "leave it out"),
    ],
)
@pytest.mark.parametrize("family", ["dynamicrafter-512", "videocrafter1-i2v"])
def test_what_no_video_can_be_made_of_is_refused_in_a_sentence_and_the_next_one_is_made(model, family, given, said):
    pipeline = model(family)
    with pytest.raises(T2VError, match=said) as error:
        latents(pipeline, **given)
    assert "\n" not in str(error.value)
    assert torch.isfinite(latents(pipeline, steps=1)).all()


def test_films_refuse_a_model_that_needs_pictures(model):
    with pytest.raises(T2VError, match="choose a text-to-video model"):
        list(Film(model("dynamicrafter-512"), "red circle", frames=32, width=32, height=32, steps=1).frames())


def test_a_pruned_model_asks_for_its_encoders_and_is_whole_with_them(model, tmp_path):
    family = "dynamicrafter-512"
    pruned, texts, images = write_pruned(tmp_path, family)
    for given, missing in (
        ({}, "no text_encoder and no image_encoder.*text_encoder= .* and image_encoder= "),
        ({"text_encoder": texts}, "no image_encoder.*give their files by image_encoder="),
        ({"image_encoder": images}, "no text_encoder.*give their files by text_encoder="),
        ({"text_encoder": images, "image_encoder": images}, "no text_encoder"),
    ):
        with pytest.raises(T2VError, match=missing):
            load_pipeline(pruned, family=family, **given)
    pipeline = load_pipeline(pruned, family=family, text_encoder=texts, image_encoder=images)
    assert torch.equal(latents(pipeline), latents(model(family)))


def test_an_image_encoder_of_another_width_is_refused(model):
    image_model = model("dynamicrafter-512").image_model
    narrow = ImageEncoder(torch.nn.Module(), None)
    narrow.model.config = type("Config", (), {"hidden_size": 40})
    with pytest.raises(T2VError, match="40 wide, and the model's Resampler takes one of 80"):
        ImageModel(image_model.family, narrow, image_model.projector)


def test_the_last_picture_is_refused_where_the_model_takes_a_first_one_only(model):
    image_model = model("videocrafter1-i2v").image_model
    image = torch.rand(1, 32, 32, 3)
    with pytest.raises(T2VError, match="takes a first picture only"):
        image_model.inputs(image, [image, image], 16, lambda each, _: each)


def test_noise_for_the_vae_samples_its_latents(model):
    pipeline = model("dynamicrafter-512")
    still = latents(pipeline, image_noise=torch.zeros(1, 4, 1, 4, 8))
    assert torch.equal(still, latents(pipeline))
    assert difference(latents(pipeline, image_noise=torch.ones(1, 4, 1, 4, 8)), still) > 1e-4


def test_the_decoder_is_shown_the_pictures_at_the_ends(model, monkeypatch):
    """ToonCrafter's decoder sees the pictures as they were fitted; with a strength of 0 it sees none."""
    pipeline = model("dynamicrafter-512-interp")
    seen = []

    def spy(vae, latents, device, ends=None):
        seen.append(ends)
        yield torch.zeros(latents.shape[1], 1, 1, 3)

    monkeypatch.setattr("t2v_models.pipeline.decode_frames", spy)
    both = {**SIZE, "steps": 1, "decode": True, "image": [FIRST, LAST], "end_image": [LAST, FIRST]}
    pipeline(["red", "blue"], **both)
    wanted = torch.from_numpy(np.stack([FIRST, LAST])).float() / 255
    assert torch.equal(seen[0], wanted)
    assert torch.equal(seen[1], wanted.flip(0))
    pipeline(["red", "blue"], **both, image_strength=0)
    assert seen[2:] == [None, None]


def test_a_story_and_a_picture_go_together_in_windows_too(model):
    pipeline = model("dynamicrafter-512")
    story = {"story": "0-50%: red circle / 50%-100%: blue square", "steps": 1}
    for windows, frames in ((None, 16), (Windows(16, 8), 24)):
        one = latents(pipeline, "", **story, windows=windows, frames=frames)
        assert difference(latents(pipeline, "", **story, windows=windows, frames=frames, image=LAST), one) > 1e-3


def test_the_command_animates_a_picture_with_a_pruned_model(tmp_path):
    model, texts, images = write_pruned(tmp_path, "dynamicrafter-512")
    Image.fromarray(FIRST).save(tmp_path / "first.png")
    command = ["generate", "red circle", "--model", str(model), "--family", "dynamicrafter-512"]
    command += [
        "--image",
        str(tmp_path / "first.png"),
        "--size",
        "64x32",
        "--steps",
        "1",
        "-o",
        str(tmp_path / "a.gif"),
    ]
    assert main(command) == 2
    assert main([*command, "--text-encoder", str(texts), "--image-encoder", str(images)]) == 0
    assert (tmp_path / "a.gif").stat().st_size > 1000


def test_a_picture_guides_on_the_device_of_the_model(model, tmp_path):
    """On this machine's GPU, or a fake one that refuses to mix devices."""
    family = "dynamicrafter-512-interp"
    options = {"end_image": LAST, "image_guidance_scale": 3, "guidance_rescale": 0.7, "decode": True}
    here = model(family)("red circle", **{**SIZE, "image": FIRST, **options})
    with nullcontext() if torch.cuda.is_available() else FakeCuda():
        there = load_pipeline(write_model(tmp_path, family), family=family, device="cuda", dtype=torch.float32)
        video = there("red circle", **{**SIZE, "image": FIRST, **options})
        found = torch.tensor(video.latents.to("cpu").tolist())
    assert difference(found, here.latents) < 1e-3
    assert video.frames.device.type == "cpu"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_picture_guides_in_half_precision(model, tmp_path, dtype):
    family = "dynamicrafter-256"
    half = load_pipeline(write_model(tmp_path, family), family=family, dtype=dtype)
    assert difference(latents(half, steps=1), latents(model(family), steps=1)) < 0.05


def test_a_picture_of_a_file_is_the_same_picture(model, tmp_path):
    Image.fromarray(FIRST).save(tmp_path / "first.png")
    pipeline = model("dynamicrafter-256")
    assert torch.equal(latents(pipeline, image=read_picture(tmp_path / "first.png")), latents(pipeline))
    Image.fromarray(FIRST).convert("RGBA").save(tmp_path / "opaque.png")
    assert torch.equal(latents(pipeline, image=read_picture(tmp_path / "opaque.png")), latents(pipeline))


def test_families_of_pictures_name_their_parts():
    """What the pipeline reads of a family fits what the family's UNet takes."""
    from t2v_models.unet import PRESETS

    for family in FAMILIES.values():
        config = PRESETS[family.unet]
        assert family.image == bool(family.image_latents or family.image_tokens), family.name
        assert (config.in_channels == 8) == bool(family.image_latents), family.name
        assert config.image_attention == (family.image_tokens == "resampler"), family.name
        assert replace(family).frames == 16 or not family.image
