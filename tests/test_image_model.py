"""The small image model: what it learns from, its weights, and how its zero-shot videos are judged."""

import json

import pytest
import torch

from t2v_models.builtin_model import IMAGE_BUILT_IN, IMAGE_BUILT_IN_FOLDER
from t2v_models.errors import T2VError
from t2v_models.evaluation.zero_shot import FRAMES, Question, asked, judge
from t2v_models.shapes.render import render
from t2v_models.shapes.world import COLOURS, SHAPES, Item, Scene, Trajectory
from t2v_models.training.builtin import stills
from t2v_models.training.builtin.image import CONFIG, ImageRecipe, train_image
from t2v_models.zero_shot.loading import load_zero_shot

QUESTION = Question("", "", "black", "right", 1)


def drawn(scenes, way=(0.3, 0.0)):
    """Frames (t, h, w, 3), one of each scene, whose object goes a way in frame widths."""
    start, count = torch.tensor([0.5, 0.5]), len(scenes)
    frames = []
    for index, scene in enumerate(scenes):
        position = (start + torch.tensor(way) * index / max(count - 1, 1))[None]
        frames.append(render([scene], [[Trajectory(position, torch.tensor([0.18]), torch.zeros(1))]])[0, 0])
    return torch.stack(frames).movedim(1, -1)


def scene(colour="red", shape="star", background="black"):
    return Scene((Item(colour, shape, "still"),), background)


def test_captions_name_no_other_colour_or_shape_and_often_leave_them_out():
    random = torch.Generator().manual_seed(0)
    given = [stills.caption(scene("green", "triangle", "blue"), random) for _ in range(300)]
    words = [set(text.strip(".").split()) for text in given]
    assert all(each & set(COLOURS) <= {"green", "blue"} for each in words)
    assert all(each & set(SHAPES) <= {"triangle"} for each in words)
    for share in (
        given.count(""),
        *(sum(bool(each) and word not in each for each in words) for word in ("green", "triangle")),
    ):
        assert 20 <= share <= 130
    assert all("blue" in each for each in words if each)


def test_panels_of_a_wide_picture_show_one_colour_at_two_places():
    random = torch.Generator().manual_seed(3)
    picture = stills.draw_picture(scene("cyan", "circle"), 2, random)
    assert picture.shape == (3, 64, 128)
    left, right = picture.chunk(2, -1)
    for panel in (left, right):
        assert torch.isclose(panel.amax((1, 2)), torch.tensor(COLOURS["cyan"]) / 255, atol=0.01).all()
    assert not torch.equal(left, right)


@pytest.mark.slow
def test_training_is_repeated_to_the_bit_and_diffusers_loads_the_result(tmp_path):
    recipe = ImageRecipe(batch=4, panels=32).scaled(0.0005)
    weights = []
    for name in "ab":
        train_image(tmp_path / f"{name}-work", tmp_path / name, recipe, seed=5, progress=False)
        weights.append((tmp_path / name / "unet" / "diffusion_pytorch_model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    pipeline = load_zero_shot(tmp_path / "a")
    assert pipeline("a red circle", frames=2, steps=4, t0=0.2, t1=0.6).shape == (2, 64, 64, 3)
    with pytest.raises(T2VError, match="begun with another --seed"):
        train_image(tmp_path / "a-work", tmp_path / "a", recipe, seed=6, progress=False)


def test_weights_are_small_and_of_the_recipes_configuration():
    unet = IMAGE_BUILT_IN_FOLDER / "unet"
    config = json.loads((unet / "config.json").read_text())
    assert {name: config[name] for name in CONFIG} == CONFIG
    assert sum(path.stat().st_size for path in IMAGE_BUILT_IN_FOLDER.rglob("*") if path.is_file()) < 10e6
    assert "license: cc0-1.0" in (IMAGE_BUILT_IN_FOLDER / "README.md").read_text()


def test_drawn_video_is_right_in_all():
    verdict = judge(QUESTION, drawn([scene()] * FRAMES))
    assert all(verdict.right.values()), verdict.right


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        (scene("blue"), {"colour", "colour and shape", "prompt"}),
        (scene(shape="circle"), {"shape", "colour and shape", "prompt"}),
    ],
)
def test_one_frame_of_another_colour_or_shape_is_seen(changed, wrong):
    scenes = [scene()] * FRAMES
    scenes[5] = changed
    right = judge(QUESTION, drawn(scenes)).right
    assert {name for name, ok in right.items() if not ok} == wrong


@pytest.mark.parametrize("way", [(-0.3, 0.0), (0.0, 0.3), (0.0, 0.0), (0.1, -0.3)])
def test_object_that_moves_elsewhere_or_not_at_all_does_not_follow(way):
    right = judge(QUESTION, drawn([scene()] * FRAMES, way)).right
    assert right["colour and shape"]
    assert not right["direction"]


def test_prompts_name_colour_and_shape_or_leave_them_open_and_go_in_all_directions():
    named, left_open = asked(48), asked(24, named=False)
    assert all(each.colour and each.shape for each in named)
    assert [(bool(each.colour), bool(each.shape)) for each in left_open[:3]] == [
        (False, True),
        (True, False),
        (False, False),
    ]
    assert any(each.prompt.startswith("a shape") for each in left_open)
    for questions in (named, left_open):
        assert {each.direction for each in questions} == {"left", "right", "up", "down"}
        assert all(each.colour != each.background for each in questions)
        assert len({each.seed for each in questions}) == len(questions)


@pytest.mark.slow
def test_anchored_video_keeps_colour_and_shape_and_moves():
    question = Question("white", "star", "red", "left", 10_000)
    frames = load_zero_shot(IMAGE_BUILT_IN)(question.prompt, motion=question.motion, seed=question.seed)
    verdict = judge(question, frames)
    assert all(verdict.right.values()), verdict.right
