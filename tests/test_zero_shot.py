"""The free functions of zero-shot videos: motion, noise, anchors, smoothing."""

from __future__ import annotations

import logging

import pytest
import torch
from torch.nn import functional as F

from t2v_models.errors import T2VError
from t2v_models.zero_shot.anchors import ANCHORS, anchor_frames, anchored
from t2v_models.zero_shot.motion import PATHS, Motion, sources, warp
from t2v_models.zero_shot.noise import forward, frame_noise, split
from t2v_models.zero_shot.smoothing import background, foreground, interleaved

from .support import image_pipelines


def of_diffusers(x, motion, frame_ids):
    copies = x.repeat(len(frame_ids), 1, 1, 1)
    return image_pipelines.module_of_diffusers().create_motion_field_and_warp_latents(
        motion.x, motion.y, frame_ids, copies
    )


def picture(height=8, width=8, channels=4, seed=0):
    return torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(seed))


SIZES = ((8, 8), (64, 64), (128, 128), (64, 96), (40, 72), (9, 31), (100, 13), (77, 128))
STRENGTHS = ((-30, 30), (12, 12), (-7, 3), (0, 0), (0, -12), (1, 29), (0.5, -2.25))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_straight_warp_has_the_bits_of_diffusers(height, width):
    x = picture(height, width, channels=1)
    strengths = STRENGTHS if height * width <= 4096 else STRENGTHS[:2]
    for strength in strengths:
        motion = Motion("straight", *map(float, strength))
        ids = (1, 2, 7, 30)
        assert torch.equal(warp(x, sources(motion, ids, 31, height, width)), of_diffusers(x, motion, list(ids)))


@pytest.mark.slow
def test_a_straight_warp_has_the_bits_of_diffusers_at_every_width_and_strength():
    for n, width in enumerate(range(8, 129)):
        height = 8 + (37 * n) % 121
        x = picture(height, width, channels=1)
        for strength in (-30 + n % 61, 30 - (3 * n) % 61):
            motion = Motion(x=float(strength), y=float(-30 + (7 * n) % 61))
            ids = (1 + n % 30, 30)
            assert torch.equal(warp(x, sources(motion, ids, 31, height, width)), of_diffusers(x, motion, list(ids)))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("how", ["nearest", "bilinear"])
def test_the_first_frame_never_moves(path, how):
    x = picture(6, 10)
    motion = Motion(path, points=((3, 4), (80, 9)) if path == "curve" else ())
    assert torch.allclose(warp(x, sources(motion, [0], 8, 6, 10), how), x, atol=1e-6)


@pytest.mark.parametrize("path", PATHS)
def test_a_frame_moves_by_its_number_whatever_else_is_asked_for(path):
    motion = Motion(path, points=((0, 0), (80, 9), (-20, 40)) if path == "curve" else ())
    whole = sources(motion, range(20), 20, 8, 12)
    assert torch.equal(sources(motion, [0, 7, 13], 20, 8, 12), whole[[0, 7, 13]])


def test_positive_strengths_move_the_content_left_and_up():
    x = torch.zeros(1, 1, 8, 8)
    x[..., 5, 5] = 1
    moved = warp(x, sources(Motion(x=64.0, y=128.0), [1], 2, 8, 8))
    assert moved[0, 0].argmax() == 3 * 8 + 4


def test_there_and_back_ends_where_it_begins():
    field = sources(Motion("there and back", 64, 0), range(9), 9, 8, 8)
    still = sources(Motion(x=0, y=0), [0], 9, 8, 8)
    assert torch.equal(field[8], still[0])
    assert torch.equal(field[3], field[5])
    assert not torch.equal(field[4], still[0])


def test_a_circle_closes_after_all_frames_and_begins_along_x():
    field = sources(Motion("circle", 12, 12), range(17), 16, 8, 8)
    assert torch.allclose(field[16], field[0], atol=1e-1)
    down, right = (field[1] - field[0]).mean((1, 2)).tolist()
    assert right > 0.1
    assert abs(down) < right


def test_a_zoom_keeps_the_middle_and_grows_by_its_percentage():
    field = sources(Motion("zoom", 25), [0, 1, 2], 3, 9, 9)
    assert field[:, :, 4, 4].eq(4).all()
    offsets = field[:, 1, 4, 8] - 4
    assert torch.allclose(offsets, 4 / torch.tensor([1, 1.25, 1.5625], dtype=torch.float64))


def test_four_turns_of_90_degrees_come_back_and_one_turns_the_content_against_the_clock():
    x = picture(9, 9)
    turned = warp(x, sources(Motion("turn", 90), [1, 4], 5, 9, 9))
    assert torch.equal(turned[1:], x)
    assert torch.equal(turned[0], torch.rot90(x[0], 1, (1, 2)))


def test_a_curve_passes_its_points_relative_to_the_first():
    field = sources(Motion("curve", points=((10, 0), (74, 0), (74, 64))), range(5), 5, 8, 8)
    right, down = (field[:, i, 4, 4] - 4 for i in (1, 0))
    half = 0.5 / 64
    assert torch.allclose(right[[0, 2, 4]], torch.tensor([0, 1 - half, 1 - half], dtype=torch.float64))
    assert torch.allclose(down[[0, 2, 4]], torch.tensor([0, 0, 1 - half], dtype=torch.float64))


def test_a_warp_between_latents_is_the_mean_of_its_neighbours_and_mirrors_at_the_edges():
    x = torch.arange(8.0).view(1, 1, 1, 8)
    field = sources(Motion(x=0, y=0), [0], 1, 1, 8)
    field[:, 1] += 0.25
    expected = torch.tensor([0.25, 1.25, 2.25, 3.25, 4.25, 5.25, 6.25, 7.0])
    assert torch.allclose(warp(x, field, "bilinear")[0, 0, 0], expected)


def test_a_whole_shift_is_the_same_by_both_ways_to_read():
    x = picture(8, 8)
    field = sources(Motion(x=0, y=0), [0, 1], 2, 8, 8)
    field[1] += 3
    assert torch.equal(warp(x, field), warp(x, field, "bilinear"))


def test_a_shift_as_large_as_the_picture_is_logged_once(caplog):
    motion = Motion(x=64, y=0)
    with caplog.at_level(logging.WARNING):
        for chunk in ([0, 1, 2, 3], [0, 4, 5, 6], [0, 7, 8, 9], [0, 10, 11]):
            sources(motion, chunk, 12, 8, 8)
    assert [record.message for record in caplog.records] == [
        "From frame 8 on the motion has left the picture, and its mirror image is seen: take less motion, fewer frames, "
        "or a path that returns."
    ]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"path": "up"}, "choose one of straight, there and back"),
        ({"x": float("nan")}, "such as 12"),
        ({"y": float("inf")}, "such as 12"),
        ({"x": "12"}, "such as 12"),
        ({"path": "curve"}, "0 points"),
        ({"path": "curve", "points": ((1, 2), (3,))}, "x and y are wanted"),
        ({"path": "curve", "points": ((1, 2), (3, float("nan")))}, "A point of the curve is nan"),
        ({"points": ((1, 2), (3, 4))}, "only a curve has points"),
        ({"path": "zoom", "x": -100}, "from -50 to 100"),
    ],
)
def test_a_wrong_motion_is_refused_in_one_sentence(wrong, words):
    with pytest.raises(T2VError, match=words):
        Motion(**wrong)


def test_noise_depends_on_the_seed_and_the_number_of_the_frame_alone():
    whole = frame_noise(3, range(9), (4, 5, 7))
    assert torch.equal(frame_noise(3, [0, 8, 2], (4, 5, 7)), whole[[0, 8, 2]])
    assert not torch.equal(frame_noise(4, [1], (4, 5, 7)), whole[1:2])
    assert len({float(frame.sum()) for frame in whole}) == 9


def test_noise_is_that_of_diffusers_which_draws_a_first_frame_and_then_all_others():
    generator = torch.Generator().manual_seed(11)
    first, others = (torch.randn(n, 4, 8, 8, generator=generator) for n in (1, 6))
    assert torch.equal(frame_noise(11, range(7), (4, 8, 8)), torch.cat([first, others]))


def test_forward_noise_adds_the_variance_that_is_missing():
    x, noise = picture(seed=1), picture(seed=2)
    assert torch.allclose(forward(x, 3.0, 5.0, noise), x + 4 * noise)
    assert torch.equal(forward(x, torch.tensor(5.0), torch.tensor(5.0), noise), x)


def table(steps):
    times = torch.linspace(999, 0, steps + 1)
    return times / 50, lambda sigmas: sigmas * 50


@pytest.mark.parametrize("steps", [20, 25, 50, 1000])
def test_a_table_is_split_at_the_nearest_steps(steps):
    sigmas, timestep = table(steps)
    i1, i0 = split(sigmas, 0.88, 0.94, timestep)
    times = timestep(sigmas)
    assert abs(times[i1] - 940) == (times - 940).abs().min()
    assert abs(times[i0] - 880) == (times - 880).abs().min()
    assert 0 < i1 < i0 < steps


def test_a_table_is_not_split_where_no_step_lies_between():
    sigmas, timestep = table(4)
    with pytest.raises(T2VError, match=r"t0 0.88 and t1 0.94 fall on the same of 4 steps"):
        split(sigmas, 0.88, 0.94, timestep)
    for t0, t1 in ((0.94, 0.88), (0.5, 0.5), (-0.1, 0.5), (0.5, 1.1), (float("nan"), 0.9)):
        with pytest.raises(T2VError, match="0 <= t0 < t1 <= 1"):
            split(sigmas, t0, t1, timestep)


def test_anchors_are_the_frames_that_their_names_say():
    assert anchor_frames("first", 3).tolist() == [[0]] * 3
    assert anchor_frames("first + previous", 4).tolist() == [[0, 0], [0, 0], [0, 1], [0, 2]]
    assert anchor_frames("first + previous + next", 3).tolist() == [[0, 0, 1], [0, 0, 2], [0, 1, 2]]
    assert anchor_frames("all", 3).tolist() == [[0, 1, 2]] * 3


@pytest.mark.parametrize("frames", [1, 4, 9, 18, 20])
def test_shuffled_groups_hold_each_frame_itself_and_change_with_step_and_seed(frames):
    groups = anchor_frames("shuffled groups", frames, seed=2, step=5)
    assert groups.shape == (frames, min(9, frames))
    for frame, members in enumerate(groups.tolist()):
        assert frame in members
        assert len(set(members)) == len(members)
    assert torch.equal(groups, anchor_frames("shuffled groups", frames, seed=2, step=5))
    if frames > 9:
        assert not torch.equal(groups, anchor_frames("shuffled groups", frames, seed=2, step=6))
        assert not torch.equal(groups, anchor_frames("shuffled groups", frames, seed=3, step=5))


@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize(("chunks", "videos"), [(1, 1), (2, 1), (3, 2)])
def test_attention_to_anchored_tokens_is_the_written_out_attention(anchor, chunks, videos):
    frames, n, c = 11, 5, 8
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(chunks * videos * frames, n, c, generator=generator)
    wanted = anchor_frames(anchor, frames, seed=1, step=3)
    context = anchored(tokens, wanted, frames, videos)
    result = F.scaled_dot_product_attention(tokens, context, context)
    for row in range(len(tokens)):
        first = row // frames * frames
        keys = torch.cat([tokens[first + int(frame)] for frame in wanted[row - first]])
        weights = (tokens[row] @ keys.T / c**0.5).softmax(-1)
        assert torch.allclose(result[row], weights @ keys, atol=1e-5)


def test_rows_that_do_not_fit_the_frames_are_refused_with_the_numbers():
    with pytest.raises(T2VError, match=r"gets 10 latents at once, which are not 1 video\(s\) of 4 frames"):
        anchored(torch.zeros(10, 2, 3), anchor_frames("first", 4), 4)
    with pytest.raises(T2VError, match="choose one of first, first"):
        anchor_frames("last", 4)
    with pytest.raises(T2VError, match="at least 1"):
        anchor_frames("first", 0)


def test_background_smoothing_is_the_paper_s_formula():
    x = torch.cat([picture(6, 6, seed=i) for i in range(4)])
    masks = torch.zeros(4, 1, 6, 6)
    for k in range(4):
        masks[k, :, 1:3, 1 + k : 3 + k] = 1
    field = sources(Motion(x=90, y=40), range(4), 4, 6, 6)
    smooth = background(x, masks, field, alpha=0.4)
    assert torch.equal(smooth[0], x[0])
    for k in range(1, 4):
        share = (1 - masks[k]) * (1 - warp(masks[:1], field[k : k + 1])[0])
        behind = warp(x[:1] * (1 - masks[:1]), field[k : k + 1])[0]
        expected = (1 - share) * x[k] + share * (0.4 * x[k] + 0.6 * behind)
        assert torch.allclose(smooth[k], expected, atol=1e-6)


def test_no_foreground_smooths_everything_and_all_foreground_nothing():
    x = torch.cat([picture(seed=i) for i in range(3)])
    field = sources(Motion(), range(3), 3, 8, 8)
    assert torch.equal(background(x, torch.ones(1, 1, 8, 8), field), x)
    assert torch.allclose(background(x, torch.zeros(1, 1, 8, 8), field, alpha=0)[1:], warp(x[:1], field)[1:], atol=1e-6)
    with pytest.raises(T2VError, match="2 masks for 3 frames"):
        background(x, torch.zeros(2, 1, 8, 8), field)
    with pytest.raises(T2VError, match="from 0 to 1"):
        background(x, torch.zeros(1, 1, 8, 8), field, alpha=2)


def test_a_foreground_is_resized_to_the_latents_and_grows_by_two_on_every_side():
    masks = torch.zeros(1, 80, 80)
    masks[:, 40:48, 32:40] = 1
    grown = foreground(masks, 10, 10)
    assert grown.shape == (1, 1, 10, 10)
    assert grown[0, 0, 3:8, 2:7].eq(1).all()
    assert grown.sum() == 25


@pytest.mark.parametrize("frames", range(1, 8))
@pytest.mark.parametrize("parity", [0, 1])
def test_alternate_frames_become_the_mean_of_their_neighbours_and_the_ends_stay(frames, parity):
    x0 = torch.cat([picture(seed=i) for i in range(frames)])
    smooth = interleaved(x0, parity)
    for k in range(frames):
        changes = k % 2 == parity and 0 < k < frames - 1
        expected = (x0[k - 1] + x0[k + 1]) / 2 if changes else x0[k]
        assert torch.equal(smooth[k], expected)
