"""Requests: arguments are checked once, and the model's defaults stand for what is not given."""

from dataclasses import FrozenInstanceError, replace
from types import SimpleNamespace

import pytest
import torch

from t2v_models.conditions import Conditions, predict
from t2v_models.errors import T2VError
from t2v_models.families import Defaults
from t2v_models.request import ClipRequest, Request
from t2v_models.sampling.windows import Windows
from t2v_models.unet import PRESETS

OWN = Defaults(frames=12, width=64, height=48, fps=10, steps=7, guidance_scale=5.0, scheduler="euler", fps_condition=4)
MODEL = SimpleNamespace(
    defaults=OWN,
    config=PRESETS["modelscope"],
    family=SimpleNamespace(guidance_rescale=0.3, eta=0.5, image=False, frame_timesteps=False),
)


def test_defaults_of_the_model_stand_for_what_is_not_given():
    request = Request.checked(MODEL, 2)
    assert request == Request((2, 4, 12, 6, 8), fps=10, fps_condition=4, steps=7, guidance_scale=5.0, seed=0)
    clip = ClipRequest.of_prompts(MODEL, ["a", "b"], "c")
    assert vars(request).items() <= vars(clip).items()
    assert (clip.prompts, clip.negatives) == (("a", "b"), ("c", "c"))
    assert (clip.scheduler, clip.eta, clip.guidance_rescale) == ("euler", 0.5, 0.3)
    with pytest.raises(FrozenInstanceError):
        request.steps = 3


def test_given_values_stand_before_defaults_and_the_frame_rate_is_the_condition_too():
    given = {"frames": 5, "width": 8, "height": 16, "fps": 3, "steps": 2, "guidance_scale": 1.0, "seed": 9}
    request = Request.checked(MODEL, **given)
    assert request == Request((1, 4, 5, 2, 1), fps=3, fps_condition=3, steps=2, guidance_scale=1.0, seed=9)


def test_sizes_of_a_given_video_are_those_of_the_clip():
    clip = ClipRequest.of_prompts(MODEL, "a", "", video=torch.zeros(1, 9, 16, 24, 3), windows=Windows(4, 2))
    assert clip.shape == (1, 4, 9, 2, 3)
    assert clip.windows.frames == 9


def test_story_has_one_negative_prompt_and_the_frames_of_the_clip():
    clip = ClipRequest.of_prompts(MODEL, "", "blue", story="0-50%: a / 50%-100%: b", frames=8)
    assert clip.story.frames == 8
    assert [scene.text for scene in clip.story.negatives] == ["blue"]
    with pytest.raises(T2VError, match="2 negative prompts for one story"):
        ClipRequest.of_prompts(MODEL, "", ["a", "b"], story="a")


@pytest.mark.parametrize(
    ("embeddings", "wanted"),
    [
        ({}, set()),
        ({"fps_embedding": True}, {"fps"}),
        ({"guidance_dim": 8}, {"guidance"}),
        ({"guidance_dim": 8, "motion_dim": 8, "fps_embedding": True}, {"fps", "guidance", "motion_guidance"}),
    ],
)
def test_unet_is_given_only_the_conditions_that_it_has_an_embedding_for(embeddings, wanted):
    conditions = Conditions.of(replace(PRESETS["modelscope"], **embeddings), 8.0, 7.5)
    given = predict(lambda x, timesteps, context, **given: given, None, torch.tensor([999, 3]), None, conditions)
    assert set(given) == wanted
    assert given.get("fps", 8.0) == 8.0
    if "guidance" in wanted:
        assert given["guidance"].tolist() == [7.5, 7.5]
    if "motion_guidance" in wanted:
        assert given["motion_guidance"].tolist() == pytest.approx([0.05, 0])
