"""Clips of several scenes, which teach the built-in model to change from one text to the next."""

from itertools import pairwise

import pytest
import torch

import t2v_models
from t2v_models.evaluation.stories import centres
from t2v_models.shapes.captions import describe
from t2v_models.shapes.scene_changes import place_sequence, render_sequence, sample_sequence
from t2v_models.shapes.world import BACKGROUNDS, DIRECTIONS, OBJECT_COLOURS, SPEEDS, Item, Scene, held_out
from t2v_models.training.builtin import batches, unet
from t2v_models.training.builtin.clips import SequencePool

FRAMES = 16


@pytest.fixture(scope="module")
def drawn():
    random = torch.Generator().manual_seed(0)
    sequences = [sample_sequence(FRAMES, random) for _ in range(60)]
    return [(sequence, place_sequence(sequence, random)) for sequence in sequences]


def test_clips_have_two_to_four_scenes(drawn):
    assert {len(sequence.scenes) for sequence, _ in drawn} == {2, 3, 4}


def test_motion_changes_and_held_out_combinations_are_not_shown(drawn):
    for sequence, _ in drawn:
        motions = [scene.items[0].motion for scene in sequence.scenes]
        assert all(before != after for before, after in pairwise(motions))
        assert sum(sequence.lengths) == len(sequence.at) == FRAMES
        assert min(sequence.lengths) >= 2
        for scene in sequence.scenes:
            item = scene.items[0]
            assert not held_out(item.colour, item.shape, item.motion)
            assert scene.background != item.colour


def test_object_moves_on_from_where_it_is(drawn):
    for sequence, trajectory in drawn:
        steps = trajectory.position.diff(dim=0)
        for i, step in enumerate(steps, start=1):
            item = sequence.scenes[int(sequence.at[i])].items[0]
            assert torch.nn.functional.cosine_similarity(step, torch.tensor(DIRECTIONS[item.motion]), dim=0) > 0.999
            assert step.norm() <= SPEEDS[item.speed][1] + 1e-6
        assert (trajectory.position - trajectory.radius[:, None]).min() >= 0
        assert (trajectory.position + trajectory.radius[:, None]).max() <= 1


def test_frames_show_the_object_on_its_trajectory(drawn):
    for sequence, trajectory in drawn[:12]:
        frames = render_sequence(sequence, trajectory).permute(0, 2, 3, 1)
        for number in range(len(sequence.scenes)):  # the background may change between them
            part = sequence.at == number
            assert (centres(frames[part]) - trajectory.position[part]).norm(dim=-1).max() < 0.03


def test_every_frame_has_the_text_of_its_scene(drawn):
    sequences = [sequence for sequence, _ in drawn[:20]]
    prompts, at = batches.sequence_prompts(sequences, FRAMES, torch.Generator().manual_seed(1))
    assert at.shape == (20, FRAMES)
    for sequence, row in zip(sequences, at, strict=True):
        texts = [prompts[i] for i in row]
        assert all(
            len({texts[i] for i in range(FRAMES) if sequence.at[i] == n}) == 1 for n in range(len(sequence.scenes))
        )
        assert (texts[0] == "") == (texts[-1] == ""), "all texts of a clip are empty, or none is"
        if texts[0] == describe(sequence.scenes[0]):
            assert sequence.scenes[0].items[0].colour in texts[0]


@pytest.mark.slow
def test_pool_draws_the_same_sequences_when_made_again(tmp_path):
    vae = t2v_models.load_pipeline("built-in").vae

    def draw(frames=FRAMES):
        return SequencePool(vae, tmp_path, seed=1, clips=8).draw(0, 5, frames, torch.Generator().manual_seed(0))

    clips, again = draw(), draw()  # the second time from the files
    assert clips.sequences == again.sequences
    assert clips.latents.shape == (5, 4, FRAMES, 8, 8)
    assert torch.equal(clips.latents, again.latents)
    assert torch.equal(clips.poses.nan_to_num(), again.poses.nan_to_num())
    shorter = draw(5)
    assert shorter.latents.shape == (5, 4, 5, 8, 8)
    assert shorter.poses.shape == (5, 5, 2, 5)
    assert all(sum(sequence.lengths) == 5 for sequence in shorter.sequences)


def test_cut_sequence_keeps_its_scenes(drawn):
    for sequence, _ in drawn:
        for start in range(FRAMES - 5):
            part = sequence.cut(start, 6)
            scenes = [sequence.scenes[i] for i in sequence.at[start : start + 6]]
            assert [part.scenes[i] for i in part.at] == scenes


def test_loss_weights_are_finite_and_highest_at_middle_noise():
    weights = unet.loss_weight(unet.alphas_cumprod())
    assert weights.isfinite().all()
    pure, middle, clean = weights[999], weights[350:500].mean(), weights[5]
    assert middle > 3 * pure
    assert middle > 3 * clean


def test_low_contrast_has_a_higher_loss_weight():
    colours = batches.colour_latents(t2v_models.load_pipeline("built-in").vae)

    def weight(colour: str, background: str) -> float:
        return batches.contrast_weight(Scene((Item(colour, "star", "right"),), background), colours)

    assert weight("white", "black") == 0.5
    assert weight("red", "yellow") < weight("orange", "yellow") <= 3
    pairs = [weight(c, b) for c in OBJECT_COLOURS for b in BACKGROUNDS if c != b]
    assert 0.7 < sum(pairs) / len(pairs) < 1.5, "the mean loss is about unchanged"
