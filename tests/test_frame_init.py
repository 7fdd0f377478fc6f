"""FrameInit: noise that holds the slow changes of given frames."""

import math

import pytest
import torch

from t2v_models.families import FAMILIES
from t2v_models.sampling.frame_init import frame_init_noise, usual_timestep
from t2v_models.sampling.noise import low_pass
from t2v_models.sampling.schedule import NoiseSchedule

CONFIG = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULE = NoiseSchedule.from_config(CONFIG)


def latents(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(16, 8, 8), (5, 6, 7), (1, 4, 9)])
@pytest.mark.parametrize("stops", [(0.25, 0.25), (0.4, 0.2)])
def test_gaussian_filter_is_the_one_of_consist_i2v(shape, stops):
    spatial, temporal = stops
    wanted = torch.zeros(shape)
    for t, h, w in torch.cartesian_prod(*map(torch.arange, shape)).tolist():
        place = [2 * i / n - 1 for i, n in zip((t, h, w), shape, strict=True)]
        square = (spatial / temporal * place[0]) ** 2 + place[1] ** 2 + place[2] ** 2
        wanted[t, h, w] = math.exp(-square / (2 * spatial**2))
    assert (low_pass(shape, "gaussian", spatial=spatial, temporal=temporal) - wanted).abs().max() < 1e-6


@pytest.mark.parametrize("timestep", [500, 850, 999])
def test_frame_init_mixes_the_spectra_of_the_noised_frames_and_of_their_noise(timestep):
    noise, still = latents(2, 4, 6, 4, 5), latents(2, 4, 1, 4, 5, seed=1)
    abar = float(SCHEDULE.alphas_cumprod[timestep])
    noised = math.sqrt(abar) * still + math.sqrt(1 - abar) * noise
    share = torch.fft.ifftshift(low_pass((6, 4, 5), "gaussian"))
    spectrum = torch.fft.fftn(noised, dim=(2, 3, 4)) * share + torch.fft.fftn(noise, dim=(2, 3, 4)) * (1 - share)
    wanted = torch.fft.ifftn(spectrum, dim=(2, 3, 4)).real
    assert (frame_init_noise(noise, still, SCHEDULE, timestep) - wanted).abs().max() < 1e-5


def test_frame_init_of_a_video_begins_as_that_video_and_of_nothing_as_the_noise():
    noise, video = latents(1, 4, 8, 4, 4), 5 * latents(1, 4, 1, 1, 1, seed=2).expand(1, 4, 8, 4, 4)
    assert (frame_init_noise(noise, video, SCHEDULE, cutoff=0.0) - noise).abs().max() < 1e-5
    colour = frame_init_noise(noise, video, SCHEDULE, timestep=500).mean((2, 3, 4))
    abar = SCHEDULE.alphas_cumprod[500].float()
    wanted = abar.sqrt() * video.mean((2, 3, 4)) + (1 - abar).sqrt() * noise.mean((2, 3, 4))
    assert torch.allclose(colour, wanted, atol=1e-5), "a colour is the slowest change, and passes whole"


def test_repeated_still_equals_one_still_and_the_type_is_the_noises():
    noise, still = latents(1, 4, 5, 4, 4), latents(1, 4, 1, 4, 4, seed=3)
    once = frame_init_noise(noise, still, SCHEDULE)
    assert torch.equal(once, frame_init_noise(noise, still.repeat(1, 1, 5, 1, 1), SCHEDULE))
    assert frame_init_noise(noise.bfloat16(), still, SCHEDULE).dtype == torch.bfloat16


def test_scale_of_videocrafter_weakens_the_frames_as_its_network_sees_them():
    noise, video = latents(1, 4, 4, 4, 4), latents(1, 4, 1, 1, 1, seed=4)
    scaled = NoiseSchedule.from_config(CONFIG, scale_base=0.7)
    change = [
        frame_init_noise(noise, video, each) - frame_init_noise(noise, 0 * video, each) for each in (SCHEDULE, scaled)
    ]
    assert torch.allclose(0.7 * change[0], change[1], atol=1e-5)


@pytest.mark.parametrize("family", ["modelscope", "videocrafter2", "vgen", "tf-t2v"])
def test_timestep_left_out_has_the_signal_of_consist_i2v_and_is_its_own_in_stable_diffusions_schedule(family):
    schedule = NoiseSchedule.from_config(FAMILIES[family].scheduler_config())
    timestep, signal = usual_timestep(schedule), SCHEDULE.alphas_cumprod[850]
    assert usual_timestep(SCHEDULE) == 850
    assert schedule.alphas_cumprod[timestep] == pytest.approx(float(signal), rel=0.02)
    noise, still = latents(1, 4, 5, 4, 4), latents(1, 4, 1, 4, 4, seed=3)
    assert torch.equal(frame_init_noise(noise, still, schedule), frame_init_noise(noise, still, schedule, timestep))
