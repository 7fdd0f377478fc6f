"""Overlapping context windows: they cover every frame, and their predictions are fused into one."""

from itertools import pairwise

import pytest
import torch

from t2v_models.errors import T2VError
from t2v_models.sampling import windows as sampling_windows
from t2v_models.sampling.windows import FUSIONS, Windows, fuse, window_weights, windows


@pytest.mark.parametrize("looped", [False, True])
@pytest.mark.parametrize(
    ("frames", "length", "overlap"), [(16, 16, 4), (17, 16, 4), (64, 16, 12), (33, 8, 0), (100, 24, 5)]
)
def test_windows_cover_every_frame_and_overlap_enough(frames, length, overlap, looped):
    spans = windows(frames, length, overlap, looped=looped)
    assert {frame for span in spans for frame in span} == set(range(frames))
    assert all(len(span) == min(length, frames) and len(set(span)) == len(span) for span in spans)
    for one, other in pairwise(spans):
        assert len(set(one) & set(other)) >= overlap
    if looped and frames > length:
        assert len(set(spans[-1]) & set(spans[0])) >= overlap


@pytest.mark.parametrize("looped", [False, True])
def test_window_borders_move_from_step_to_step(looped):
    settings = Windows(16, 8, looped=looped).over(64)
    steps = [settings.spans(step) for step in range(20)]
    for spans in steps:
        assert {frame for span in spans for frame in span} == set(range(64))
        assert all(len(span) == 16 for span in spans)
    first = [span[0] for spans in steps for span in spans if looped or span[0] not in (0, 48)]
    assert max(first.count(frame) for frame in first) <= 4, "a frame that is often at a border is visible"
    assert settings.spans(0) == windows(64, 16, 8, looped=looped)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_fused_windows_of_a_frame_wise_function_equal_it(fusion):
    x = torch.randn(1, 4, 37, 3, 3)
    spans = windows(37, 16, 6)
    fused = fuse((x[:, :, span].tanh() for span in spans), spans, window_weights(16, fusion, 6), 37)
    assert (fused - x.tanh()).abs().max() < 1e-6, (
        "the values are at most 1, so that rounding errors stay below the bound"
    )


def test_one_window_over_all_frames_equals_the_prediction():
    x = torch.randn(1, 4, 12, 3, 3)
    assert torch.equal(fuse([x * 2], windows(12, 12, 4), window_weights(12), 12), x * 2)


@pytest.mark.parametrize("per_frame", [False, True])
def test_windows_in_one_batch_equal_single_windows(monkeypatch, per_frame):
    calls = []

    def unet(x, timesteps, context, fps):
        calls.append(len(x))
        texts = len(context) // len(x)
        noise = timesteps[:, None, :, None, None] if timesteps.ndim == 2 else timesteps[:, None, None, None, None]
        text = context.mean(-1).sum(-1)
        text = text[:, None, :, None, None] if context.ndim == 4 else text[:, None, None, None, None]
        video = x * noise + fps[:, None, None, None, None] * x.mean(2, keepdim=True)
        return video.repeat(texts, 1, 1, 1, 1) + text * x.square().repeat(texts, 1, 1, 1, 1)

    random = torch.Generator().manual_seed(1)
    x, fps = torch.randn(2, 4, 30, 3, 3, generator=random), torch.tensor([1.0, 2.0])
    timesteps = torch.rand((2, 30) if per_frame else 2, generator=random)
    context = torch.randn((4, 30, 7, 5) if per_frame else (4, 7, 5), generator=random)
    results = []
    for filled in (1, 3 * 8 * 9, 10**6):
        monkeypatch.setattr(sampling_windows, "FILLED", filled)
        results.append(Windows(8, 3).over(30).around(unet)(x, timesteps, context, fps=fps))
    assert sorted(set(calls)) == [2, 6, 12], "one, three or all six windows in a batch"
    assert (results[0] - results[1]).abs().max() < 1e-5 > (results[0] - results[2]).abs().max()
    assert results[0].shape == (4, 4, 30, 3, 3)


@pytest.mark.parametrize("bad", [(16, 8, 8), (16, 0, 0), (0, 8, 2), (16, 8, -1), (7, 8, 2)])
def test_invalid_windows_are_refused(bad):
    with pytest.raises(T2VError, match=r"wanted|at least|at most"):
        windows(*bad)


def test_rotated_window_is_put_back_in_order():
    frames = torch.arange(8.0)
    span = [(i + 3) % 8 for i in range(8)]
    assert torch.equal(fuse([frames[span]], [span], torch.ones(8), 8, dim=0), frames)


def test_looped_window_without_overlap_starts_at_another_frame_in_every_step():
    x, seen = torch.arange(8.0).view(1, 1, 8, 1, 1), []

    def unet(x, timesteps, context, **conditions):
        seen.append(x.flatten().tolist())
        return x

    for step in range(4):
        settings = Windows(8, 0, looped=True).over(8)
        assert torch.equal(settings.around(unet, step)(x, torch.zeros(1), torch.zeros(1, 1, 1)), x)
    assert len({tuple(each) for each in seen}) > 1


def test_looped_window_has_no_frame_that_is_always_at_its_border():
    settings = Windows(16, 8, looped=True).over(16)
    spans = [span for step in range(8) for span in settings.spans(step)]
    assert all(sorted(span) == list(range(16)) for span in spans)
    assert len({span[0] for span in spans}) > 8
