"""The world of moving shapes: frames agree with captions, and the analysis finds right and wrong clips."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from t2v_models.evaluation.report import table
from t2v_models.evaluation.run import answers, summarise, truth
from t2v_models.evaluation.scoring import questions, score
from t2v_models.shapes.captions import describe, paraphrase, vocabulary
from t2v_models.shapes.render import render
from t2v_models.shapes.world import (
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    MOTIONS,
    OBJECT_COLOURS,
    SHAPES,
    STRAIGHT,
    Item,
    Scene,
    World,
    combinations,
    held_out,
    place,
)

EVERYTHING = World(straight=0.3, diagonal=0.2, other=0.3, pairs=0.2)


def clip(scene, frames=16, seed=0, size=64):
    """(t, h, w, 3) of one drawn scene."""
    trajectories = [place(scene, frames, torch.Generator().manual_seed(seed))]
    return render([scene], trajectories, size)[0].permute(0, 2, 3, 1)


def one(colour="red", shape="circle", motion="right", speed="", background="black"):
    return Scene((Item(colour, shape, motion, speed),), background)


def test_the_seed_determines_the_clip():
    scene = one()
    assert torch.equal(clip(scene, seed=3), clip(scene, seed=3))
    assert not torch.equal(clip(scene, seed=3), clip(scene, seed=4))


def test_a_fifth_of_the_combinations_is_held_out_and_never_sampled():
    everything = combinations(MOTIONS, None)
    share = len(combinations(MOTIONS, True)) / len(everything)
    assert 0.17 < share < 0.23
    random = torch.Generator().manual_seed(0)
    for _ in range(400):
        for item in EVERYTHING.sample(random).items:
            assert not held_out(item.colour, item.shape, item.motion)


@pytest.mark.parametrize("pair", [(OBJECT_COLOURS, SHAPES), (OBJECT_COLOURS, STRAIGHT), (SHAPES, STRAIGHT)])
def test_training_shows_every_pair_of_attributes(pair):
    seen = {frozenset(c) for c in combinations(STRAIGHT)}
    for first in pair[0]:
        for second in pair[1]:
            assert any({first, second} <= combination for combination in seen), (first, second)


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("frames", [1, 2, 16, 24])
def test_object_stays_inside_the_frame(motion, frames):
    scene = one(shape="star", motion=motion, speed="fast" if motion in STRAIGHT else "")
    for seed in range(5):
        trajectory = place(scene, frames, torch.Generator().manual_seed(seed))[0]
        assert trajectory.position.shape == (frames, 2)
        assert (trajectory.position - trajectory.radius[:, None] > -0.02).all()
        assert (trajectory.position + trajectory.radius[:, None] < 1.02).all()


@pytest.mark.parametrize("frames", [1, 2, 16, 24])
@pytest.mark.parametrize("motions", [(a, b) for a in STRAIGHT for b in STRAIGHT])
def test_two_objects_never_meet_and_the_first_is_on_the_left_or_above(motions, frames):
    sideways = all(motion in ("left", "right") for motion in motions)
    for seed, speed in enumerate(["slowly", "", "fast"]):
        items = (Item("red", "circle", motions[0], speed), Item("blue", "star", motions[1], "fast"))
        first, second = place(Scene(items), frames, torch.Generator().manual_seed(seed))
        axis = 1 if sideways else 0
        gap = (second.position - first.position)[:, axis] - first.radius - second.radius
        assert (gap > 0).all()
        for item, trajectory in zip(items, (first, second), strict=True):
            assert (trajectory.position - trajectory.radius[:, None] > -0.02).all()
            assert (trajectory.position + trajectory.radius[:, None] < 1.02).all()
            advance = (trajectory.position[-1] - trajectory.position[0]) @ torch.tensor(DIRECTIONS[item.motion])
            assert frames == 1 or advance > 0


def test_spinning_objects_are_large():
    radii = [
        float(place(one(shape="star", motion="spins"), 16, torch.Generator().manual_seed(s))[0].radius[0])
        for s in range(20)
    ]
    assert 0.2 <= min(radii) <= max(radii) <= 0.3


def test_edges_are_smooth_and_motion_is_finer_than_a_pixel():
    scene = one("white", motion="right", speed="slowly")
    frames = clip(scene)
    values = frames[0, ..., 0].unique()
    assert len(values) > 8, "an edge without anti-aliasing has two values"
    for before, after in pairwise(frames):
        assert not torch.equal(before, after), "an object slower than a pixel per frame must still move"


def test_scene_looks_the_same_at_another_size():
    scene = one("green", "square", "down", background="white")
    small, large = clip(scene, size=64), clip(scene, size=128)
    shrunk = large.unflatten(1, (64, 2)).unflatten(3, (64, 2)).mean(dim=(2, 4))
    assert (shrunk - small).abs().mean() < 0.005


def test_every_colour_has_its_value():
    for colour in OBJECT_COLOURS:
        background = "black" if colour != "black" else "white"
        scene = one(colour, "square", "right", background=background)
        position = place(scene, 1, torch.Generator().manual_seed(0))[0].position[0]
        pixel = clip(scene, 1)[0, int(position[1] * 64), int(position[0] * 64)]
        assert torch.allclose(pixel, torch.tensor(COLOURS[colour]) / 255, atol=0.01)


def test_captions_name_the_attributes_of_the_scene():
    scene = Scene((Item("red", "circle", "right"), Item("white", "star", "up", "fast")), "blue")
    assert describe(scene) == "a red circle moves right and a white star moves up fast on a blue background"
    random = torch.Generator().manual_seed(0)
    texts = {paraphrase(scene, random, vague=0, noise=0) for _ in range(200)}
    assert len(texts) > 150
    for text in texts:
        assert "red" in text
        assert "star" in text
        assert "blue" in text
        assert set(text.rstrip(".").split()) <= set(vocabulary())


@pytest.mark.slow
def test_analysis_scores_drawn_clips_of_every_group_as_right():
    asked = questions({"plain": 24, "held out": 8, "other": 27, "pairs": 12}, seed=5)
    for summary in summarise(answers(truth(asked), asked)):
        assert summary.right["all"] >= 0.96, summary
        assert summary.speed_error < 0.02
        assert summary.flicker < 0.1


def apart(scene):
    """A clip whose object stays in one half of the frame."""
    for seed in range(100):
        frames = clip(scene, seed=seed)
        if any((half - frames[0, 0, 0]).abs().max() < 0.01 for half in frames.tensor_split(2, dim=2)):
            return frames
    raise AssertionError("no such clip")


WRONG = {
    "colour": one("blue"),
    "shape": one(shape="square"),
    "motion": one(motion="left"),
    "background": one(background="white"),
    "count": Scene((Item("red", "circle", "right"), Item("white", "star", "up"))),
}


@pytest.mark.parametrize("criterion", WRONG)
def test_analysis_scores_other_clips_as_wrong(criterion):
    for seed in range(4):
        result = score(one(), clip(WRONG[criterion], seed=seed))
        assert not result.right[criterion]
        assert not result.right["all"]


def test_noise_and_plain_frames_are_never_right():
    noise = torch.rand(16, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    for frames in (noise, torch.zeros(16, 64, 64, 3), torch.ones(16, 64, 64, 3)):
        for motion in ("right", "still", "grows"):
            assert not score(one(motion=motion), frames).right["all"]


def test_reversed_clip_moves_in_the_opposite_direction():
    frames = clip(one(motion="right"))
    assert score(one(motion="right"), frames).right["all"]
    assert score(one(motion="left"), frames.flip(0)).right["all"]
    assert not score(one(motion="right"), frames.flip(0)).right["motion"]


def test_two_objects_of_one_colour_are_counted_as_two():
    frames = apart(one(motion="up"))
    assert score(one(motion="up"), frames).right["all"]
    assert not score(one(motion="up"), torch.maximum(frames, frames.flip(2))).right["count"]


@pytest.mark.parametrize("motion", ["up", "still"])
def test_object_that_disappears_for_a_while_is_not_right(motion):
    frames = clip(one(motion=motion))
    empty = frames[:1, :1, :1].expand_as(frames)
    for missing in (range(5, 8), range(12, 16)):
        broken = frames.clone()
        broken[list(missing)] = empty[list(missing)]
        assert not score(one(motion=motion), broken).right["count"]


def test_second_object_that_appears_late_is_not_right():
    frames = apart(one(motion="up"))
    for colour in ("red", "blue"):
        other = apart(one(colour, motion="up")).flip(2)
        late = torch.cat([frames[:10], torch.maximum(frames, other)[10:]])
        assert not score(one(motion="up"), late).right["all"]


def test_object_that_stands_and_jumps_does_not_move():
    frames = clip(one(motion="right", speed="fast"))
    jumping = frames[[0] * 8 + [15] * 8]
    assert not score(one(motion="right", speed="fast"), jumping).right["motion"]


def test_object_that_turns_back_and_forth_does_not_spin():
    frames = clip(one(shape="square", motion="spins"))
    assert score(one(shape="square", motion="spins"), frames).right["all"]
    assert not score(one(shape="square", motion="spins"), frames[[0, 2] * 8]).right["motion"]


def test_values_that_cannot_be_measured_are_missing():
    (summary,) = summarise(
        answers(lambda prompts, seed: torch.zeros(len(prompts), 16, 64, 64, 3), questions({"plain": 2}))
    )
    assert (summary.speed_error, summary.jitter) == (None, None)
    assert " - " in table([summary])


def test_wrong_speed_is_measured():
    slow = clip(one(motion="right", speed="slowly"))
    assert score(one(motion="right", speed="slowly"), slow).speed_error < 0.05
    assert score(one(motion="right", speed="fast"), slow).speed_error > 0.5


def test_flicker_is_measured():
    frames = clip(one())
    scene = one()
    flickering = (frames + 0.05 * (torch.arange(16) % 2)[:, None, None, None]).clamp(0, 1)
    assert score(scene, frames).flicker < 0.1
    assert 10 < score(scene, flickering).flicker < 15


def test_questions_contain_all_attributes_equally_often():
    asked = questions({"plain": 96}, seed=1)
    for values in (OBJECT_COLOURS, SHAPES, STRAIGHT):
        text = [describe(replace(q.scene, background="black")) for q in asked]
        counts = [sum(f" {value}" in t for t in text) for value in values]
        assert min(counts) >= 96 / len(values) * 0.5, dict(zip(values, counts, strict=True))
    assert {q.scene.background for q in asked} == set(BACKGROUNDS)
    assert not any(held_out(i.colour, i.shape, i.motion) for q in asked for i in q.scene.items)
    held = questions({"held out": 20})
    assert all(held_out(i.colour, i.shape, i.motion) for q in held for i in q.scene.items)
