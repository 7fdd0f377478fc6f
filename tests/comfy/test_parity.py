"""The graph's results equal the library's, for the same seed and settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

CHECKS = Path(__file__).parent / "checks" / "parity.py"
PROMPTS = {"prompt": "a red circle moves right", "negative_prompt": "blue"}


@pytest.fixture(scope="module")
def graph(run_checks: Callable[[Path], dict], base: Path) -> dict[str, torch.Tensor]:
    results = run_checks(CHECKS)
    assert results[""]["ok"], results[""]["error"]
    return torch.load(base / "parity.pt", weights_only=True)


@pytest.fixture(scope="module", params=["tiny", "tiny-v", "built-in"])
def model(request: pytest.FixtureRequest, tiny: dict[str, Path]) -> tuple:
    from t2v_models import load_pipeline

    return request.param, load_pipeline(tiny.get(request.param, request.param))


def differ(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference in units of the values' size, at least 1."""
    return float((a - b).abs().max() / max(1.0, float(b.abs().max())))


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["ddim", "euler", "dpm++2m", "unipc"])
def test_latents_equal_the_librarys(graph, model, scheduler) -> None:
    name, pipe = model
    size = {"frames": 4, "width": 64, "height": 64, "steps": 8, "seed": 7, "decode": False}
    ours = pipe(**PROMPTS, **size, guidance_scale=6.0, scheduler=scheduler).latents
    assert differ(graph[f"{name} {scheduler}"] * pipe.vae.config.scaling_factor, ours) < 1e-4


@pytest.mark.slow
def test_rescaled_guidance_and_the_decoded_frames_equal_the_librarys(graph, model) -> None:
    name, pipe = model
    settings = {"guidance_scale": 9.0, "guidance_rescale": 0.7, "scheduler": "ddim", "steps": 8, "seed": 7}
    video = pipe(**PROMPTS, frames=4, width=64, height=64, **settings)
    assert differ(graph[f"{name} rescaled"] * pipe.vae.config.scaling_factor, video.latents) < 1e-4
    assert differ(graph[f"{name} frames"], video.frames[0]) < 1e-4


@pytest.mark.slow
def test_text_and_encoded_frames_equal_the_librarys(graph, model) -> None:
    name, pipe = model
    frames = torch.linspace(0, 1, 4 * 64 * 64 * 3).view(1, 4, 64, 64, 3)
    assert differ(graph[f"{name} text"], pipe.encode_text([PROMPTS["prompt"]])) < 1e-4
    assert differ(graph[f"{name} encoded"] * pipe.vae.config.scaling_factor, pipe.encode_video(frames)) < 1e-4


@pytest.mark.slow
def test_video_to_video_equals_the_librarys(graph, model) -> None:
    name, pipe = model
    frames = torch.linspace(0, 1, 4 * 64 * 64 * 3).view(1, 4, 64, 64, 3)
    settings = {"guidance_scale": 6.0, "scheduler": "ddim", "steps": 10, "seed": 7, "decode": False}
    ours = pipe(**PROMPTS, video=frames, strength=0.5, **settings).latents
    assert differ(graph[f"{name} video"] * pipe.vae.config.scaling_factor, ours) < 1e-4
