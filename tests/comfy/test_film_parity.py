"""Films made in the graph equal the library's, for the same seed and settings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

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
        film = Film(pipeline, "a red circle", method=method, seed=3, steps=2, guidance_scale=4.0, **size)
        ours = torch.cat(list(film.latents()), dim=2)
        difference = (latents * pipeline.vae.config.scaling_factor - ours).abs().max() / ours.std()
        assert difference < 1e-4, method
