"""Long videos of the built-in model: scenes follow their lines, loops close, and window borders are invisible."""

import pytest
import torch

from t2v_models import Film, load_pipeline
from t2v_models.evaluation.stories import centres, flicker, tales
from t2v_models.evaluation.workers import make_story
from t2v_models.sampling.windows import Windows

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pipeline():
    return load_pipeline("built-in")


def whole(film: Film) -> torch.Tensor:
    return torch.cat(list(film.frames()))


@pytest.fixture(scope="module")
def verdicts():
    return [make_story(tale, "built-in", "cpu", {"method": "coarse-to-fine"})[0] for tale in tales(8, seed=3)]


def test_scenes_of_stories_follow_their_lines(verdicts):
    scenes = [scene["all"] for verdict in verdicts for scene in verdict.right]
    assert sum(scenes) >= 0.9 * len(scenes)


def test_no_object_jumps_between_scenes(verdicts):
    assert max(verdict.border for verdict in verdicts) <= 2


def loop(pipeline, frames, seed, method="windows"):
    """The frames of a loop, followed by its first frame, and the steps of its object between them."""
    window = Windows(16, 8, looped=True)
    made = whole(Film(pipeline, "a yellow star bounces", frames=frames, seed=seed, method=method, window=window))
    made = torch.cat([made, made[:1]])
    return made, centres(made).diff(dim=0).norm(dim=-1)


@pytest.mark.parametrize("method", ["windows", "coarse-to-fine"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_loop_continues_from_its_last_frame_to_its_first(pipeline, seed, method):
    frames, steps = loop(pipeline, 32, seed, method)
    assert flicker(frames)[-1] <= flicker(frames)[:-1].max()
    assert steps[-1] <= steps[:-1].max()
    assert method == "windows" or steps.max() <= 3 * steps.median(), "it jumps somewhere"


def test_loop_as_long_as_a_window_does_not_jump(pipeline):
    steps = [loop(pipeline, 16, seed)[1] for seed in range(10, 15)]
    assert sum(bool(each.max() <= 3 * each.median()) for each in steps) >= 4


def test_flicker_at_window_borders_is_that_of_other_frames(pipeline):
    films = [Film(pipeline, "a red circle moves right slowly", frames=64, seed=seed, steps=12) for seed in range(2, 7)]
    curve = torch.stack([flicker(whole(film)) for film in films])[
        :, 8:56
    ]  # outside, only one window covers a frame, which lowers the flicker
    borders = torch.zeros(48, dtype=torch.bool)
    borders[7::8] = True  # windows of 16 that overlap by 8 begin and end here
    assert curve[:, borders].mean() <= 1.1 * curve[:, ~borders].mean()
    assert curve[:, borders].median() <= 1.1 * curve[:, ~borders].median()  # a few frames can change a mean
