"""FIFO sampling, for endless video: a queue of frames, each one step noisier than the one before."""

import itertools

import pytest
import torch

from t2v_models.errors import T2VError
from t2v_models.sampling.ddim import ddim_step
from t2v_models.sampling.fifo import Fifo
from t2v_models.sampling.schedule import CLEAN, NoiseSchedule
from t2v_models.sampling.timesteps import ddim_timesteps

CONFIG = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
SCHEDULE = NoiseSchedule.from_config(CONFIG)


def _constant_model(colour, seen=None):
    """A model that predicts the noise with which every clean frame is `colour`."""

    def predict(x, timesteps, numbers):
        if seen is not None:
            seen.append((tuple(x.shape), timesteps, numbers))
        abar = SCHEDULE.alphas_cumprod.float()[timesteps][:, None, :, None, None]
        return (x - abar.sqrt() * colour) / (1 - abar).sqrt().clamp(min=1e-3)

    return predict


def test_model_of_one_image_gives_a_video_of_that_image_in_constant_memory():
    colour = torch.randn(1, 4, 1, 3, 3)
    clip, seen = torch.randn(1, 4, 5, 3, 3), []
    frames = Fifo(
        _constant_model(colour, seen),
        clip,
        ddim_timesteps(16),
        SCHEDULE,
        window=8,
        generator=torch.Generator().manual_seed(0),
        end=CLEAN,
    )
    made = torch.cat(list(itertools.islice(frames, 24)), dim=2)
    assert (made[:, :, 16:] - colour).abs().max() < 1e-4
    assert {shape for shape, _, _ in seen} == {(4, 4, 8, 3, 3)}  # memory does not grow
    assert next(frames).untyped_storage().nbytes() == 4 * 9 * 4, "a frame must not share the memory of the queue"
    for _, timesteps, numbers in seen:
        assert (timesteps.diff(dim=1) >= 0).all()
        assert (numbers.diff(dim=1) >= 0).all()


def test_queue_of_one_timestep_does_one_ddim_step_for_each_frame():
    predict = _constant_model(torch.randn(1, 4, 1, 3, 3))
    generator = torch.Generator().manual_seed(3)
    frames = Fifo(predict, torch.zeros(1, 4, 1, 3, 3), ddim_timesteps(1), SCHEDULE, window=2, generator=generator)
    made = [next(frames) for _ in range(3)]
    again = torch.Generator().manual_seed(3)
    noise = [torch.randn(1, 4, 1, 3, 3, generator=again) for _ in range(4)][1:]
    timestep = ddim_timesteps(1)
    for frame, x in zip(made, noise, strict=True):
        prediction = predict(x, timestep[None], None)
        expected = ddim_step(x, prediction, SCHEDULE, timestep, torch.tensor(0))
        assert (frame - expected).abs().max() < 1e-6


@pytest.mark.parametrize("when", [0, 3, 20])
def test_restored_video_continues_bit_for_bit(when):
    predict = _constant_model(torch.randn(1, 4, 1, 3, 3))
    clip = torch.randn(1, 4, 5, 3, 3)

    def queue(seed):
        random = torch.Generator().manual_seed(seed)
        return Fifo(predict, clip, ddim_timesteps(8), SCHEDULE, window=8, generator=random)

    first, second = queue(0), queue(1)
    for _ in range(when):
        next(first)
    second.restore({name: value.clone() for name, value in first.state().items()})
    for _ in range(10):
        assert torch.equal(next(first), next(second))


@pytest.mark.parametrize(("window", "steps"), [(7, 14), (8, 15), (0, 4)])
def test_window_that_does_not_fit_the_queue_is_refused(window, steps):
    clip, random = torch.zeros(1, 4, 1, 3, 3), torch.Generator()
    with pytest.raises(T2VError, match="an even window is wanted"):
        Fifo(
            lambda *_: None,
            clip,
            ddim_timesteps(steps),
            SCHEDULE,
            window=window,
            generator=random,
        )
