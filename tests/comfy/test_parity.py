"""The graph's results equal the library's, for the same seed and settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from t2v_models import Film, load_pipeline
from t2v_models.builtin_model import BUILT_IN, IMAGE_BUILT_IN
from t2v_models.films.settings import LOOPS, METHODS
from t2v_models.pipeline import Pipeline
from t2v_models.sampling.windows import Windows
from t2v_models.zero_shot.loading import load_zero_shot

from ..test_image_to_video_parity import recorded
from .conftest import PARITY, Results

PROMPTS = {"prompt": "a red circle moves right", "negative_prompt": "blue"}
STORY = "0-50%: a red circle / 50%-100%: a blue square"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(run_checks: Callable[..., Results], base: Path) -> Callable[[str, str], dict[str, torch.Tensor]]:
    """What a check of checks/parity.py wrote to a file."""

    def load(check: str, file: str) -> dict[str, torch.Tensor]:
        run_checks(PARITY).demand(PARITY, check)
        return torch.load(base / file, weights_only=True)

    return load


@pytest.fixture(scope="module")
def graph(made: Callable[[str, str], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return made("check_latents_for_the_comparison", "parity.pt")


@pytest.fixture(scope="module", params=["tiny", "tiny-v", "built-in"])
def model(request: pytest.FixtureRequest, tiny: dict[str, Path]) -> tuple:
    return request.param, load_pipeline(tiny.get(request.param, request.param))


def differ(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference in units of the values' size, at least 1."""
    return float((a - b).abs().max() / max(1.0, float(b.abs().max())))


@pytest.mark.parametrize("scheduler", ["ddim", "euler", "dpm++2m", "unipc"])
def test_latents_equal_the_librarys(graph, model, scheduler) -> None:
    name, pipe = model
    size = {"frames": 4, "width": 64, "height": 64, "steps": 8, "seed": 7, "decode": False}
    ours = pipe(**PROMPTS, **size, guidance_scale=6.0, scheduler=scheduler).latents
    assert differ(graph[f"{name} {scheduler}"] * pipe.vae.config.scaling_factor, ours) < 1e-4


def test_rescaled_guidance_and_the_decoded_frames_equal_the_librarys(graph, model) -> None:
    name, pipe = model
    settings = {"guidance_scale": 9.0, "guidance_rescale": 0.7, "scheduler": "ddim", "steps": 8, "seed": 7}
    video = pipe(**PROMPTS, frames=4, width=64, height=64, **settings)
    assert differ(graph[f"{name} rescaled"] * pipe.vae.config.scaling_factor, video.latents) < 1e-4
    assert differ(graph[f"{name} frames"], video.frames[0]) < 1e-4


def test_text_and_encoded_frames_equal_the_librarys(graph, model) -> None:
    name, pipe = model
    frames = torch.linspace(0, 1, 4 * 64 * 64 * 3).view(1, 4, 64, 64, 3)
    assert differ(graph[f"{name} text"], pipe.encode_text([PROMPTS["prompt"]])) < 1e-4
    assert differ(graph[f"{name} encoded"] * pipe.vae.config.scaling_factor, pipe.encode_video(frames)) < 1e-4


def test_video_to_video_equals_the_librarys(graph, model) -> None:
    name, pipe = model
    frames = torch.linspace(0, 1, 4 * 64 * 64 * 3).view(1, 4, 64, 64, 3)
    settings = {"guidance_scale": 6.0, "scheduler": "ddim", "steps": 10, "seed": 7, "decode": False}
    ours = pipe(**PROMPTS, video=frames, strength=0.5, **settings).latents
    assert differ(graph[f"{name} video"] * pipe.vae.config.scaling_factor, ours) < 1e-4


@pytest.fixture(scope="module")
def velocity(tiny: dict[str, Path]) -> Pipeline:
    return load_pipeline(tiny["tiny-v"])


def test_films_equal_the_librarys(made, velocity) -> None:
    graph = made("check_films_of_every_method_have_every_frame", "films.pt")
    assert set(graph) == {*METHODS, *(f"{method} loop" for method in LOOPS)}
    for name, latents in graph.items():
        method, looped = name.removesuffix(" loop"), name.endswith(" loop")
        size = {"frames": 9, "width": 32, "height": 32, "fps": 8.0, "window": Windows(4, 2, looped=looped)}
        film = Film(velocity, STORY, method=method, seed=3, steps=2, guidance_scale=4.0, **size)
        ours = torch.cat(list(film.latents()), dim=2)
        difference = (latents * velocity.vae.config.scaling_factor - ours).abs().max() / ours.std()
        assert difference < 1e-4, name


def test_long_clips_of_pictures_equal_the_librarys(made) -> None:
    ways = {"windows": Windows(16, 8), "free-noise": Windows(16, 8, free_noise=True)}
    graph = made("check_long_clips_of_pictures_for_the_comparison", "pictures.pt")
    assert len(graph) == 4
    size = {"frames": 24, "width": 64, "height": 32, "decode": False}
    how = {"steps": 3, "guidance_scale": 4.0, "guidance_rescale": 0.0, "eta": 0.0, "scheduler": "ddim", "seed": 7}
    for name, latents in graph.items():
        family, way, strength = name.split("/")
        pipeline = recorded(family)
        call = {**pipeline.pictures(), **size, **how, "image_strength": float(strength)}
        ours = pipeline("prompt", "negative", windows=ways[way], **call).latents
        difference = (latents * 0.18215 - ours).abs().max() / ours.abs().max()
        assert difference < 3e-4, (name, float(difference))


def test_stories_in_windows_and_with_free_noise_equal_the_librarys(made, velocity) -> None:
    ways = {
        "windows": Windows(4, 2),
        "loop": Windows(4, 2, "linear", looped=True),
        "loop of one window": Windows(10, 6, "pyramid", looped=True),
        "free-noise": Windows(4, 2, free_noise=True),
    }
    graph = made("check_long_clips_for_the_comparison", "long.pt")
    assert set(graph) == set(ways)
    call = {"frames": 10, "width": 32, "height": 32, "fps": 8.0, "steps": 3, "guidance_scale": 4.0, "seed": 1}
    for name, windows in ways.items():
        ours = velocity(story=STORY, windows=windows, scheduler="ddim", decode=False, **call).latents
        difference = (graph[name] * velocity.vae.config.scaling_factor - ours).abs().max() / ours.std()
        assert difference < 1e-4, (name, float(difference))


def test_predictions_and_schedule_of_the_image_model_equal_diffusers(made) -> None:
    graph = made("check_predictions_of_the_image_model_for_the_comparison", "image_model.pt")
    pipe = load_zero_shot(IMAGE_BUILT_IN).pipe
    context = load_pipeline(BUILT_IN).encode_text(["a red circle"]).expand(3, -1, -1)
    with torch.no_grad():
        ours = pipe.unet(graph["x"], graph["timesteps"], context).sample
    assert float((graph["out"] - ours).abs().max() / ours.abs().max()) < 1e-5
    abar = pipe.scheduler.alphas_cumprod
    assert torch.allclose(graph["sigmas"], ((1 - abar) / abar).sqrt(), rtol=1e-4)
