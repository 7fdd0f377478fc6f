"""Repeat and slide: TI2V-Zero's loop, and its edges."""

import itertools

import pytest
import torch

from t2v_models.errors import T2VError
from t2v_models.sampling.ddim import ddim_step
from t2v_models.sampling.repeat_and_slide import calls_to_slide, repeat_and_slide, sample_after
from t2v_models.sampling.schedule import CLEAN, NoiseSchedule
from t2v_models.sampling.timesteps import ddim_timesteps

CONFIG = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
SCHEDULE = NoiseSchedule.from_config(CONFIG)
STEPS = ddim_timesteps(5)


def latents(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def predict(x, timesteps):
    """A toy network that mixes frames, channels and timesteps."""
    share = (timesteps.float() / 1000)[:, None, :, None, None]
    return 0.7 * x + 0.2 * x.roll(1, 2) - 0.1 * x.flip(1) + share * x.mean(2, keepdim=True).tanh()


def restated(known, count, rounds, generator, end):
    """TI2V-Zero's sampling of one clip, from the paper's equations, on plain numbers."""
    b, c, k, h, w = known.shape
    abar = SCHEDULE.alphas_cumprod

    def noise(frames):
        return torch.randn((b, c, frames, h, w), generator=generator)

    def diffused(clean, e, t):
        return clean if t == CLEAN else abar[t].sqrt().float() * clean + (1 - abar[t]).sqrt().float() * e

    def step(x, t, following):
        e = predict(x, torch.full((b, k + count), t))
        clean = (x - (1 - abar[t]).sqrt().float() * e) / abar[t].sqrt().float()
        return diffused(clean, e, following)

    times = [*STEPS.tolist(), end]
    x = diffused(torch.cat([known[:, :, -1:]] * (k + count), 2), noise(k + count), times[0])
    for t, following in itertools.pairwise(times):
        x[:, :, :k] = diffused(known, noise(k), t)
        held = diffused(known, noise(k), following) if rounds else None
        for _ in range(rounds):
            x = step(x, t, following)
            x[:, :, :k] = held
            ratio = (abar[t] / (1 if following == CLEAN else abar[following])).float()
            x = ratio.sqrt() * x + (1 - ratio).sqrt() * noise(k + count)
        x = step(x, t, following)
    return x[:, :, k:]


@pytest.mark.parametrize("end", [0, CLEAN])
@pytest.mark.parametrize(("known", "rounds"), [(5, 4), (3, 1), (1, 2), (5, 0)])
def test_loop_is_the_papers(known, rounds, end):
    given = latents(2, 4, known, 3, 3)
    ours = sample_after(
        predict,
        given,
        6 - known,
        STEPS,
        SCHEDULE,
        resample=rounds,
        generator=torch.Generator().manual_seed(7),
        end=end,
    )
    theirs = restated(given, 6 - known, rounds, torch.Generator().manual_seed(7), end)
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


@pytest.mark.parametrize("rounds", [0, 3])
def test_without_known_frames_it_is_plain_sampling(rounds):
    made = sample_after(
        predict,
        latents(1, 4, 0, 3, 3),
        6,
        STEPS,
        SCHEDULE,
        resample=rounds,
        generator=torch.Generator().manual_seed(3),
    )
    x = torch.randn(1, 4, 6, 3, 3, generator=torch.Generator().manual_seed(3))
    for t, following in zip(STEPS, [*STEPS[1:], torch.tensor(CLEAN)], strict=True):
        x = ddim_step(x, predict(x, t.expand(1, 6)), SCHEDULE, t, following)
    assert torch.equal(made, x)


def test_without_resampling_it_is_replacement():
    known, generator = latents(1, 4, 2, 3, 3), torch.Generator().manual_seed(5)
    made = sample_after(predict, known, 4, STEPS, SCHEDULE, resample=0, generator=torch.Generator().manual_seed(5))
    x = SCHEDULE.add_noise(
        known[:, :, -1:].expand(1, 4, 6, 3, 3), torch.randn(1, 4, 6, 3, 3, generator=generator), STEPS[0]
    )
    for t, following in zip(STEPS, [*STEPS[1:], torch.tensor(CLEAN)], strict=True):
        replaced = SCHEDULE.add_noise(known, torch.randn(1, 4, 2, 3, 3, generator=generator), t)
        x = torch.cat([replaced, x[:, :, 2:]], 2)
        x = ddim_step(x, predict(x, t.expand(1, 6)), SCHEDULE, t, following)
    assert torch.equal(made, x[:, :, 2:])


@pytest.mark.parametrize(("frames", "known"), [(1, 5), (2, 5), (16, 5), (16, 3), (7, 1), (13, 4)])
def test_picture_comes_out_unchanged_and_each_clip_is_asked_for_as_often_as_counted(frames, known):
    first, calls = latents(2, 4, 1, 3, 3), 0

    def counted(x, timesteps):
        nonlocal calls
        calls += 1
        assert x.shape[2] == 6
        return predict(x, timesteps)

    made = repeat_and_slide(
        counted, first, frames, STEPS, SCHEDULE, window=6, known=known, resample=2, generator=torch.Generator()
    )
    assert made.shape == (2, 4, frames, 3, 3)
    assert torch.equal(made[:, :, :1], first)
    assert calls == calls_to_slide(frames, len(STEPS), window=6, known=known, resample=2)


def test_new_frames_are_known_to_the_next_clip_as_they_are_refreshed():
    first, shown = latents(1, 4, 1, 3, 3), []

    def refresh(new):
        shown.append(new)
        return new.round()

    call = {"window": 4, "known": 3, "resample": 0}
    made = repeat_and_slide(
        predict, first, 3, STEPS, SCHEDULE, refresh=refresh, generator=torch.Generator().manual_seed(1), **call
    )
    assert torch.equal(torch.cat(shown, 2), made[:, :, 1:])
    generator = torch.Generator().manual_seed(1)
    one = sample_after(predict, torch.cat([first] * 3, 2), 1, STEPS, SCHEDULE, resample=0, generator=generator)
    two = sample_after(
        predict, torch.cat([first, first, one.round()], 2), 1, STEPS, SCHEDULE, resample=0, generator=generator
    )
    assert torch.equal(made, torch.cat([first, one, two], 2))


@pytest.mark.parametrize("known", [0, -1, 6, 15])
def test_clips_without_known_or_without_new_frames_are_refused(known):
    with pytest.raises(T2VError, match="known frames in a clip of 6"):
        repeat_and_slide(predict, latents(1, 4, 1, 3, 3), 4, STEPS, SCHEDULE, window=6, known=known)
