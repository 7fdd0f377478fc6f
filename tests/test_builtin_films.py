"""Long videos of the built-in model: known right answers, and loops that lead from their end to their beginning."""

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
def told():
    return [make_story(tale, "built-in", "cpu", {"method": "coarse-to-fine"})[0] for tale in tales(8, seed=3)]


def test_scenes_of_stories_are_what_their_lines_say(told):
    scenes = [scene["all"] for verdict in told for scene in verdict.right]
    assert sum(scenes) >= 0.9 * len(scenes)


def test_no_object_jumps_between_scenes(told):
    assert max(verdict.border for verdict in told) <= 2


def loop(pipeline, frames, seed, method="windows"):
    """The frames of a loop, the first once more at its end, and how far its object goes from each to the next."""
    window = Windows(16, 8, looped=True)
    made = whole(Film(pipeline, "a yellow star bounces", frames=frames, seed=seed, method=method, window=window))
    made = torch.cat([made, made[:1]])
    return made, centres(made).diff(dim=0).norm(dim=-1)


@pytest.mark.parametrize("method", ["windows", "coarse-to-fine"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_loop_leads_from_its_last_frame_to_its_first(pipeline, seed, method):
    frames, steps = loop(pipeline, 32, seed, method)
    assert flicker(frames)[-1] <= flicker(frames)[:-1].max()
    assert steps[-1] <= steps[:-1].max()
    assert method == "windows" or steps.max() <= 3 * steps.median(), "it jumps somewhere"


def test_a_loop_as_long_as_a_window_jumps_nowhere(pipeline):
    steps = [loop(pipeline, 16, seed)[1] for seed in range(10, 15)]
    assert sum(bool(each.max() <= 3 * each.median()) for each in steps) >= 4


def test_no_window_shows_in_the_flicker_of_films_of_one_prompt(pipeline):
    films = [Film(pipeline, "a red circle moves right slowly", frames=64, seed=seed, steps=12) for seed in range(2, 7)]
    curve = torch.stack([flicker(whole(film)) for film in films])[:, 8:56]  # beyond, one window is alone, and calmer
    borders = torch.zeros(48, dtype=torch.bool)
    borders[7::8] = True  # windows of 16 that overlap by 8 begin and end here
    assert curve[:, borders].mean() <= 1.1 * curve[:, ~borders].mean()
    assert curve[:, borders].median() <= 1.1 * curve[:, ~borders].median()  # a mean hangs on few frames
