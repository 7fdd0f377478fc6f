"""What the tests of films share: a small model, a story of two scenes, and the usual call."""

import torch

from t2v_models import load_pipeline
from t2v_models.sampling.windows import Windows

from .models import write_diffusers_folder

STORY = "0-50%: a red circle moves right / 50%-100%: a blue square moves up"
CALL = {"width": 32, "height": 32, "steps": 4, "guidance_scale": 3.0, "window": Windows(4, 2)}


def small_pipeline(folder):
    return load_pipeline(write_diffusers_folder(folder / "model", prediction="v_prediction"))


def latents(film):
    return torch.cat(list(film.latents()), dim=2)
