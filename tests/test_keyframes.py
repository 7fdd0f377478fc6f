"""Coarse to fine: key frames, and what lies between known frames."""

import itertools
import math

import pytest
import torch

from t2v_models.sampling.keyframes import (
    coarse_to_fine,
    film_strides,
    key_numbers,
    loop_strides,
    motion_jump_ratio,
    refine_transitions,
    sample_between,
    segment_count,
)
from t2v_models.sampling.schedule import NoiseSchedule
from t2v_models.sampling.timesteps import ddim_timesteps

CONFIG = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


@pytest.mark.parametrize(
    ("frames", "window", "count"),
    [(3376, 16, 3), (1000, 16, 3), (256, 16, 3), (64, 16, 2), (16, 16, 1), (17, 16, 2), (1, 16, 1)],
)
def test_coarse_to_fine_makes_every_frame_once_in_order(frames, window, count):
    """With key frames that hold their number, and straight lines between two ends, the right answer is known."""
    assert len(film_strides(frames, window)) == count
    held, cost = [], 0

    def keys(numbers):
        nonlocal cost
        assert len(numbers) <= window
        cost += len(numbers)
        return torch.tensor(numbers, dtype=torch.float64).view(1, 1, -1, 1, 1)

    def fill(ends, numbers, stride):
        nonlocal cost
        held.append(len(ends))
        (length,) = {len(segment) for segment in numbers}
        assert length <= window
        assert {b - a for segment in numbers for a, b in itertools.pairwise(segment)} == {stride}
        cost += length * len(numbers)
        step = torch.linspace(0, 1, length, dtype=torch.float64)[None, None, :, None, None]
        return ends[:, :, :1] + (ends[:, :, 1:] - ends[:, :, :1]) * step

    parts = list(coarse_to_fine(frames, film_strides(frames, window), keys, fill, batch=4))
    assert torch.allclose(torch.cat(parts, dim=2).flatten(), torch.arange(frames, dtype=torch.float64))
    assert max(held, default=0) <= 4
    if frames >= 64:
        assert cost < 1.21 * frames, "a frame of a short film must cost about as much as one of a long film"


@pytest.mark.parametrize("frames", [1, 2, 9, 13, 15, 16, 17, 31, 32, 64, 250, 251, 3376])
@pytest.mark.parametrize("window", [3, 4, 5, 16])
def test_loop_has_every_frame_once_and_its_last_gap_ends_at_the_first(frames, window):
    strides, first, filled = loop_strides(frames, window), [], 0

    def keys(numbers):
        first.extend(numbers)
        assert len(numbers) <= window
        assert numbers == key_numbers(frames, strides[0], looped=True)[:-1]
        gaps = {after - before for before, after in itertools.pairwise([*numbers, frames])}
        assert max(gaps) - min(gaps) <= 1, "what moves steadily from key to key does so over the end"
        return torch.tensor(numbers).view(1, 1, -1, 1, 1)

    def fill(ends, numbers, stride):
        nonlocal filled
        filled += len(numbers)
        assert [[each[0], each[-1] % frames] for each in numbers] == (ends % frames).flatten(1).tolist()
        assert all(2 < len(each) <= window for each in numbers)
        assert all(0 < b - a <= stride for each in numbers for a, b in itertools.pairwise(each))
        return torch.tensor(numbers)[:, None, :, None, None]

    made = torch.cat(list(coarse_to_fine(frames, strides, keys, fill, batch=4, looped=True)), dim=2)
    assert made.flatten().tolist() == list(range(frames))
    assert filled == segment_count(frames, strides, looped=True)


@pytest.mark.parametrize("frames", [17, 64, 100, 256, 1000, 3376])
@pytest.mark.parametrize("coarsest", [1, 4, 16, 30, 250, 3376])
def test_key_frames_are_as_close_as_wanted_and_as_one_window_holds(frames, coarsest):
    strides, usual = film_strides(frames, 16, coarsest), film_strides(frames, 16)
    assert strides[1:] == usual[1:]
    assert all(coarse % fine == 0 and coarse > fine for coarse, fine in itertools.pairwise(strides))
    for coarse, fine in itertools.pairwise(strides):
        assert coarse // fine <= 15
    assert math.ceil((frames - 1) / strides[0]) <= 15
    nearer = strides[0] - strides[1]
    assert strides[0] <= coarsest or math.ceil((frames - 1) / nearer) > 15 or strides == usual
    assert strides[0] <= usual[0]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("known_clean", [False, True])
def test_known_frames_come_out_unchanged_and_the_others_as_the_model_predicts(kind, known_clean):
    schedule = NoiseSchedule.from_config({**CONFIG, "prediction_type": kind})
    colour = torch.randn(1, 4, 1, 3, 3)
    clean = torch.randn(2, 4, 5, 3, 3)
    known = torch.tensor([True, False, False, False, True])

    def predict(x, timesteps):
        share = schedule.alphas_cumprod.float()[timesteps][:, None, :, None, None]
        noise = (x - share.sqrt() * colour) / (1 - share).sqrt().clamp(min=1e-2)
        if known_clean:
            assert (timesteps[:, known] == 0).all()
            assert torch.equal(x[:, :, known], clean[:, :, known])
        return noise if kind == "epsilon" else share.sqrt() * noise - (1 - share).sqrt() * colour

    noise = torch.randn(2, 4, 5, 3, 3)
    result = sample_between(
        predict,
        noise,
        known,
        clean,
        ddim_timesteps(8),
        schedule,
        known_clean=known_clean,
        resample=2,
        generator=torch.Generator().manual_seed(0),
    )
    assert torch.equal(result[:, :, known], clean[:, :, known])
    assert (result[:, :, ~known] - colour).abs().max() < 1e-3


@pytest.mark.parametrize("sizes", [[64], [1] * 64, [15, 15, 15, 15, 4], [3, 30, 31]])
@pytest.mark.parametrize("clips", [[], [(0, 4)], [(8, 24), (24, 40), (60, 64)]])
def test_clips_are_regenerated_once_each_and_all_frames_stay_in_order(sizes, clips):
    frames = torch.arange(64.0).view(1, 1, -1, 1, 1)
    seen = []

    def again(clip, first):
        assert clip.flatten().tolist() == list(range(first, first + clip.shape[2]))
        seen.append((first, first + clip.shape[2]))
        return clip + 0.5

    made = list(refine_transitions(iter(frames.split(sizes, dim=2)), clips, again))
    expected = frames.clone()
    for start, end in clips:
        expected[:, :, start:end] += 0.5
    assert torch.equal(torch.cat(made, dim=2), expected)
    assert seen == clips


def test_frame_waits_only_for_a_clip_that_holds_it():
    given = []

    def parts():
        for number in range(20):
            given.append(number)
            yield torch.full((1, 1, 1, 1, 1), float(number))

    made = refine_transitions(parts(), [(8, 12)], lambda clip, first: clip)
    for number in range(8):
        assert next(made).item() == number
        assert len(given) == number + 1


@pytest.mark.parametrize("known_clean", [False, True])
def test_regenerated_clip_begins_as_itself_at_the_noise_of_the_first_step(known_clean):
    schedule, steps = NoiseSchedule.from_config(CONFIG), ddim_timesteps(8)[3:]
    clean, noise = torch.randn(1, 4, 5, 3, 3), torch.randn(1, 4, 5, 3, 3)
    known = torch.tensor([True, False, False, False, True])
    shown = []

    def predict(x, timesteps):
        shown.append(x.clone())
        return torch.zeros_like(x)

    sample_between(predict, noise, known, clean, steps, schedule, known_clean=known_clean, repaint=True)
    share = schedule.alphas_cumprod.float()[steps[0]]
    noisy = share.sqrt() * clean + (1 - share).sqrt() * noise
    assert torch.allclose(shown[0][:, :, ~known], noisy[:, :, ~known])
    assert torch.allclose(shown[0][:, :, known], (clean if known_clean else noisy)[:, :, known])


def spots(places, size=16):
    """(1, 3, t, size, size): a white spot on gray whose middle is at those columns, and whose colour may change."""
    columns = torch.arange(size)
    rows = [torch.exp(-((columns - place) ** 2)[None, :] - ((columns - 8) ** 2)[:, None]) for place in places]
    return 0.5 + torch.stack(rows)[None, None].expand(1, 3, -1, -1, -1).clone()


@pytest.mark.parametrize(("places", "wanted"), [([3, 5, 7, 9], 1), ([2, 4, 6, 12], 3), ([9, 7, 5, 3], 1)])
def test_motion_jump_ratio_is_the_longest_step_over_the_median_step(places, wanted):
    assert float(motion_jump_ratio(spots(places))) == pytest.approx(wanted, rel=0.02)


def test_change_of_colour_is_no_jump():
    clip = spots([3, 5, 7, 9])
    clip[:, 0, 2:] = 1 - clip[:, 0, 2:]
    assert float(motion_jump_ratio(clip)) == pytest.approx(1, rel=0.02)


def test_clips_without_motion_or_of_two_frames_are_steady():
    assert float(motion_jump_ratio(spots([5, 5, 5, 5]))) <= 1
    assert float(motion_jump_ratio(spots([2, 12]))) == 1
    assert motion_jump_ratio(torch.zeros(3, 4, 5, 8, 8)).isfinite().all()
