"""The noise schedule against formulas, the originals' arrays and diffusers."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from t2v_models.errors import T2VError
from t2v_models.families import FAMILIES
from t2v_models.sampling.schedule import CLEAN, NoiseSchedule
from t2v_models.sampling.schedulers import SCHEDULERS
from t2v_models.sampling.solvers import make_solver

SCALED = ["videocrafter2", "videocrafter1-1024", "dynamicrafter-512", "dynamicrafter-1024"]
ROOT = Path(__file__).parents[1]


def schedule_of(name: str) -> NoiseSchedule:
    family = FAMILIES[name]
    scale, keeps = family.scale_base, family.keeps_last_scale
    return NoiseSchedule.from_config(family.scheduler_config(), scale_base=scale, keeps_last_scale=keeps)


def output_of(schedule: NoiseSchedule, clean: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """What a perfect network puts out; the velocity as DynamiCrafter trains it: sqrt(abar) e - sqrt(1 - abar) s x_0."""
    abar, scale = schedule.alphas_cumprod[t].to(clean), schedule.scale[t].to(clean)
    if schedule.prediction_type == "epsilon":
        return noise
    return abar.sqrt() * noise - (1 - abar).sqrt() * scale * clean


@pytest.mark.parametrize("name", [name for name, each in FAMILIES.items() if each.beta_schedule == "scaled_linear"])
def test_tables_equal_the_originals_arrays(name):
    """Betas, zero terminal SNR, products and scale in numpy, in the order of the originals' register_schedule."""
    family, schedule = FAMILIES[name], schedule_of(name)
    betas = np.linspace(family.betas[0] ** 0.5, family.betas[1] ** 0.5, 1000) ** 2
    abar = np.cumprod(1 - betas)
    if family.zero_terminal_snr:
        root = np.sqrt(abar)
        root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
        abar = root**2
    base = family.scale_base or 1.0
    scale = np.concatenate([np.linspace(1, base, 400), np.full(600, base)])
    assert np.abs(schedule.signal.numpy() - np.sqrt(abar) * scale).max() < 1e-12
    assert np.abs(schedule.noise.numpy() - np.sqrt(1 - abar)).max() < 1e-12
    assert bool(schedule.alphas_cumprod[-1] == 0) == family.zero_terminal_snr
    assert schedule.alphas_cumprod.dtype == torch.float64


@pytest.mark.parametrize("name", [*SCALED, "modelscope", "tf-t2v"])
@pytest.mark.parametrize("t", [0, 1, 400, 998, 999])
def test_the_output_of_a_perfect_network_gives_the_clean_latents_back(name, t):
    schedule = schedule_of(name)
    clean, noise = torch.randn(2, 1, 4, 3, 5, 5, dtype=torch.float64)
    t = torch.tensor(t)
    if schedule.prediction_type == "epsilon" and schedule.alphas_cumprod[t] == 0:
        return
    x = schedule.add_noise(clean, noise, t)
    found, direction = schedule.to_clean(x, output_of(schedule, clean, noise, t), t)
    assert (found - clean).abs().max() < 1e-9
    assert (direction - noise).abs().max() < 1e-9


@pytest.mark.parametrize("name", SCALED)
def test_every_frame_may_have_a_timestep_of_its_own(name):
    schedule = schedule_of(name)
    clean, noise = torch.randn(2, 2, 4, 3, 5, 5)
    t = torch.tensor([[0, 400, 900], [CLEAN, 1, 700]])
    together = schedule.add_noise(clean, noise, t)
    for b in range(2):
        for frame in range(3):
            part = (slice(b, b + 1), slice(None), slice(frame, frame + 1))
            assert torch.equal(together[part], schedule.add_noise(clean[part], noise[part], t[b, frame]))
    assert torch.equal(together[1, :, 0], clean[1, :, 0])


@pytest.mark.parametrize("name", ["videocrafter2", "modelscope"])
def test_more_noise_gives_the_noisier_timesteps_signal_and_noise(name):
    schedule = schedule_of(name)
    t, before = torch.tensor(600), torch.tensor(200)
    one, nothing = torch.ones(1, 1, 1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, 1, 1, 1, dtype=torch.float64)
    kept = float(schedule.add_more_noise(one, nothing, t, before))
    fresh = float(schedule.add_more_noise(nothing, one, t, before))
    assert kept * float(schedule.signal[before]) == pytest.approx(float(schedule.signal[t]), rel=1e-9)
    noise = (kept * float(schedule.noise[before])) ** 2 + fresh**2
    assert noise == pytest.approx(float(schedule.noise[t]) ** 2, rel=1e-9)


@pytest.mark.parametrize("solver", SCHEDULERS)
@pytest.mark.parametrize("name", [*SCALED, "modelscope", "tf-t2v"])
def test_every_solver_finds_the_clean_latents_of_a_perfect_network(name, solver):
    """So the network's input and output are in its own terms at every step, whatever scheduler works on them."""
    schedule = schedule_of(name)
    clean, noise = torch.randn(2, 1, 4, 3, 5, 5)
    made = make_solver(solver, schedule, 10, [torch.Generator().manual_seed(0)])
    x = made.start(noise)
    for t in made.timesteps:
        seen = made.model_input(x, t)
        at = t.long()
        signal, share = schedule.factors(at, seen)
        x = made.step(output_of(schedule, clean, (seen - signal * clean) / share, at), x, t)
    last = float(schedule.scale[int(made.timesteps[-1])]) if schedule.keeps_last_scale else 1.0
    assert (made.finish(x) - last * clean).abs().max() < 0.15, "DDIM leaves the noise of timestep 0"


def test_an_unknown_prediction_type_or_beta_schedule_is_refused():
    config = FAMILIES["modelscope"].scheduler_config()
    with pytest.raises(T2VError, match="epsilon or v_prediction is wanted"):
        NoiseSchedule.from_config({**config, "prediction_type": "sample"})
    with pytest.raises(T2VError, match="scaled_linear, linear or squaredcos_cap_v2 is wanted"):
        NoiseSchedule.from_config({**config, "beta_schedule": "sigmoid"})


def test_betas_are_multiplied_up_in_one_place():
    sources = [path for folder in ("t2v_models", "nodes") for path in (ROOT / folder).rglob("*.py")]
    found = [
        path.relative_to(ROOT).as_posix()
        for path in sources
        if re.search(r"\.cumprod\(", path.read_text(encoding="utf-8"))
    ]
    assert found == ["t2v_models/sampling/schedule.py"]
