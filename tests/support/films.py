"""What tests of films share: a small model, a story of two scenes, and short settings."""

from pathlib import Path

import torch

from t2v_models import load_pipeline
from t2v_models.sampling.windows import Windows

from .model_folder import write_model_folder

STORY = "0-50%: a red circle moves right / 50%-100%: a blue square moves up"
CALL = {"width": 32, "height": 32, "steps": 4, "guidance_scale": 3.0, "window": Windows(4, 2)}


def small_pipeline(folder: Path):
    """The pipeline of a model of random weights that predicts velocity."""
    return load_pipeline(write_model_folder(folder / "model", prediction_type="v_prediction"))


def latents(film) -> torch.Tensor:
    """(1, 4, frames, h/8, w/8) of the whole film."""
    return torch.cat(list(film.latents()), dim=2)
