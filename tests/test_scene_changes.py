"""Clips of several scenes, which teach the built-in model to go from one text to the next."""

from itertools import pairwise

import pytest
import torch

import t2v_models
from t2v_models.evaluation.stories import centres
from t2v_models.shapes.captions import describe
from t2v_models.shapes.scene_changes import draw_turn, place_turn, sample_turn
from t2v_models.shapes.world import BACKGROUNDS, DIRECTIONS, OBJECT_COLOURS, SPEEDS, Item, Scene, held_out
from t2v_models.training.builtin import unet
from t2v_models.training.builtin.scene_changes import Turns

FRAMES = 16


@pytest.fixture(scope="module")
def drawn():
    random = torch.Generator().manual_seed(0)
    turns = [sample_turn(FRAMES, random) for _ in range(60)]
    return [(turn, place_turn(turn, random)) for turn in turns]


def test_clips_have_two_to_four_scenes(drawn):
    assert {len(turn.scenes) for turn, _ in drawn} == {2, 3, 4}


def test_the_way_changes_and_nothing_held_out_is_shown(drawn):
    for turn, _ in drawn:
        motions = [scene.items[0].motion for scene in turn.scenes]
        assert all(before != after for before, after in pairwise(motions))
        assert sum(turn.lengths) == len(turn.at) == FRAMES
        assert min(turn.lengths) >= 2
        for scene in turn.scenes:
            item = scene.items[0]
            assert not held_out(item.colour, item.shape, item.motion)
            assert scene.background != item.colour


def test_an_object_goes_on_from_where_it_is(drawn):
    for turn, path in drawn:
        steps = path.position.diff(dim=0)
        for i, step in enumerate(steps, start=1):
            item = turn.scenes[int(turn.at[i])].items[0]
            assert torch.nn.functional.cosine_similarity(step, torch.tensor(DIRECTIONS[item.motion]), dim=0) > 0.999
            assert step.norm() <= SPEEDS[item.speed][1] + 1e-6
        assert (path.position - path.radius[:, None]).min() >= 0
        assert (path.position + path.radius[:, None]).max() <= 1


def test_what_is_drawn_is_where_the_path_says(drawn):
    for turn, path in drawn[:12]:
        frames = draw_turn(turn, path).permute(0, 2, 3, 1)
        for number in range(len(turn.scenes)):  # the background may change between them
            part = turn.at == number
            assert (centres(frames[part]) - path.position[part]).norm(dim=-1).max() < 0.03


def test_every_frame_has_its_own_scene_s_text(drawn):
    turns = [turn for turn, _ in drawn[:20]]
    prompts, at = unet.turn_prompts(turns, FRAMES, torch.Generator().manual_seed(1))
    assert at.shape == (20, FRAMES)
    for turn, row in zip(turns, at, strict=True):
        texts = [prompts[i] for i in row]
        assert all(len({texts[i] for i in range(FRAMES) if turn.at[i] == n}) == 1 for n in range(len(turn.scenes)))
        assert (texts[0] == "") == (texts[-1] == ""), "guidance departs from no text for the whole clip"
        if texts[0] == describe(turn.scenes[0]):
            assert turn.scenes[0].items[0].colour in texts[0]


def test_turns_are_the_same_when_made_again(tmp_path):
    vae = t2v_models.load_pipeline("built-in").vae

    def draw(frames=FRAMES):
        return Turns(vae, tmp_path, seed=1, clips=8).draw(0, 5, frames, torch.Generator().manual_seed(0))

    (turns, latents, poses), again = draw(), draw()  # the second time from the files
    assert turns == again[0]
    assert latents.shape == (5, 4, FRAMES, 8, 8)
    assert torch.equal(latents, again[1])
    assert torch.equal(poses.nan_to_num(), again[2].nan_to_num())
    shorter, latents, poses = draw(5)
    assert latents.shape == (5, 4, 5, 8, 8)
    assert poses.shape == (5, 5, 2, 5)
    assert all(sum(turn.lengths) == 5 for turn in shorter)


def test_what_is_cut_out_of_a_clip_keeps_its_scenes(drawn):
    for turn, _ in drawn:
        for start in range(FRAMES - 5):
            part = turn.cut(start, 6)
            scenes = [turn.scenes[i] for i in turn.at[start : start + 6]]
            assert [part.scenes[i] for i in part.at] == scenes


def test_no_level_of_noise_drowns_another():
    weights = unet.weigh(unet.alphas_cumprod())
    assert weights.isfinite().all()
    pure, middle, clean = weights[999], weights[350:500].mean(), weights[5]
    assert middle > 3 * pure
    assert middle > 3 * clean


def test_what_is_hardly_seen_counts_for_more():
    tints = unet.tints_of(t2v_models.load_pipeline("built-in").vae)

    def faintness(colour: str, background: str) -> float:
        return unet.faintness(Scene((Item(colour, "star", "right"),), background), tints)

    assert faintness("white", "black") == 0.5
    assert faintness("red", "yellow") < faintness("orange", "yellow") <= 3
    pairs = [faintness(c, b) for c in OBJECT_COLOURS for b in BACKGROUNDS if c != b]
    assert 0.7 < sum(pairs) / len(pairs) < 1.5, "the usual loss stays what it was"
