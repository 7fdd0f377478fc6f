"""The evaluation of stories: drawn stories are right, and every fault is found."""

import torch

from t2v_models.evaluation.stories import Tale, centres, flicker, judge, table, tales
from t2v_models.sampling.story import parse_story
from t2v_models.shapes.render import render
from t2v_models.shapes.world import DIRECTIONS, Item, Scene, Trajectory

STEP = 0.022


def drawn(tale: Tale, jump: tuple[float, float] = (0.0, 0.0)) -> torch.Tensor:
    """The frames of a story, with a jump at its second scene if one is given."""
    directions = [torch.tensor(DIRECTIONS[scene.items[0].motion]) for scene in tale.scenes for _ in range(tale.length)]
    steps = STEP * torch.stack(directions)
    steps[0] = 0
    steps[tale.length] += torch.tensor(jump)
    path = steps.cumsum(0)
    path = path - (path.amax(0) + path.amin(0)) / 2 + 0.5
    parts = []
    for number, scene in enumerate(tale.scenes):
        position = path[number * tale.length : (number + 1) * tale.length]
        trajectory = Trajectory(position, torch.full((tale.length,), 0.14), torch.zeros(tale.length))
        parts.append(render([scene], [[trajectory]], 64)[0].permute(0, 2, 3, 1))
    return torch.cat(parts)


def test_drawn_story_is_right_and_moves_evenly():
    tale = Tale(
        tuple(Scene((Item(c, "star", m),)) for c, m in [("red", "right"), ("green", "up"), ("blue", "left")]), 16, 0
    )
    verdict = judge(tale, drawn(tale))
    assert verdict.whole
    assert verdict.border < 1.4


def test_jump_between_scenes_is_found():
    tale = Tale((Scene((Item("red", "circle", "right"),)), Scene((Item("blue", "circle", "up"),))), 16, 0)
    verdict = judge(tale, drawn(tale, (-0.2, 0.1)))
    assert verdict.whole
    assert verdict.border > 5


def test_scene_of_wrong_colour_or_motion_is_found():
    asked = Tale((Scene((Item("red", "circle", "right"),)), Scene((Item("blue", "circle", "up"),))), 16, 0)
    made = Tale((Scene((Item("red", "circle", "right"),)), Scene((Item("green", "circle", "down"),))), 16, 0)
    verdict = judge(asked, drawn(made))
    assert verdict.right[0]["all"]
    assert not verdict.right[1]["colour"]
    assert not verdict.right[1]["motion"]
    assert "every scene right: 0.0 %" in table([verdict])


def test_tales_are_valid_stories_whose_neighbouring_scenes_differ():
    for tale in tales(20):
        assert len(parse_story(tale.text, 64, 8).scenes) == 4
        for one, other in zip(tale.scenes, tale.scenes[1:], strict=False):
            assert one.items[0].colour != other.items[0].colour
            assert one.items[0].motion != other.items[0].motion


def test_flicker_and_centres_have_known_values():
    frames = torch.zeros(3, 8, 16, 3)
    frames[1:] = 0.1
    assert torch.allclose(flicker(frames), torch.tensor([25.5, 0.0]))
    frames = torch.zeros(1, 32, 32, 3)
    frames[:, 8:12, 20:24] = 1
    assert torch.allclose(centres(frames), torch.tensor([[22 / 32, 10 / 32]]))
