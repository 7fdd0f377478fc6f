"""Films made in the graph equal the library's, for the same seed and settings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

STORY = "0-50%: a red circle / 50%-100%: a blue square"
CHECKS = Path(__file__).parent / "checks" / "long_videos.py"


@pytest.mark.slow
def test_films_equal_the_librarys(run_checks, base: Path, tiny: dict[str, Path]) -> None:
    from t2v_models import load_pipeline
    from t2v_models.film import METHODS, Film
    from t2v_models.sampling.windows import Windows

    results = run_checks(CHECKS)
    assert results[""]["ok"], results[""]["error"]
    graph = torch.load(base / "films.pt", weights_only=True)
    assert set(graph) == set(METHODS)
    pipeline = load_pipeline(tiny["tiny-v"])
    for method, latents in graph.items():
        size = {"frames": 9, "width": 32, "height": 32, "fps": 8.0, "window": Windows(4, 2)}
        film = Film(pipeline, STORY, method=method, seed=3, steps=2, guidance_scale=4.0, **size)
        ours = torch.cat(list(film.latents()), dim=2)
        difference = (latents * pipeline.vae.config.scaling_factor - ours).abs().max() / ours.std()
        assert difference < 1e-4, method


@pytest.mark.slow
def test_stories_in_windows_and_with_free_noise_equal_the_librarys(run_checks, base: Path, tiny: dict[str, Path]):
    from t2v_models import load_pipeline
    from t2v_models.sampling.windows import Windows

    ways = {
        "windows": Windows(4, 2),
        "loop": Windows(4, 2, "linear", looped=True),
        "free-noise": Windows(4, 2, free_noise=True),
    }
    results = run_checks(CHECKS)
    assert results[""]["ok"], results[""]["error"]
    graph = torch.load(base / "long.pt", weights_only=True)
    assert set(graph) == set(ways)
    pipeline = load_pipeline(tiny["tiny-v"])
    call = {"frames": 10, "width": 32, "height": 32, "fps": 8.0, "steps": 3, "guidance_scale": 4.0, "seed": 1}
    for name, windows in ways.items():
        ours = pipeline(story=STORY, windows=windows, scheduler="ddim", decode=False, **call).latents
        difference = (graph[name] * pipeline.vae.config.scaling_factor - ours).abs().max() / ours.std()
        assert difference < 1e-4, (name, float(difference))
