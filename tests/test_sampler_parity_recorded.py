"""Our pipeline's latents equal those of VideoCrafter's and DynamiCrafter's own samplers, recorded with seeded weights.

See `tests/references/record_samplers.py` for how they were made.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest
import torch
from torch import Tensor

from t2v_models import load_unet
from t2v_models.families import FAMILIES
from t2v_models.pipeline import Pipeline
from tests.references.parity import difference
from tests.references.samplers import DYNAMICRAFTER, SEED, SHAPE, VIDEOCRAFTER, Run, SamplerRecording

TOLERANCE = 2e-5


class Recorded(Pipeline):
    """The recorded network as a pipeline whose texts are the recorded embeddings."""

    def __init__(self, family: str) -> None:
        self.recording = SamplerRecording.load(family)
        unet, entry = load_unet(self.recording.state_dict()), FAMILIES[family]
        super().__init__(unet, None, None, None, entry.scheduler_config(), entry)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        prompt, negative = self.recording.contexts()
        return torch.cat([negative if text == "negative" else prompt for text in texts])


@cache
def recorded(family: str) -> Recorded:
    return Recorded(family)


RUNS = [*VIDEOCRAFTER, *DYNAMICRAFTER]


@pytest.mark.parametrize(
    "run", [pytest.param(run, id=run.name, marks=[pytest.mark.slow] * (run.steps > 10)) for run in RUNS]
)
def test_latents_equal_the_originals(run: Run) -> None:
    pipeline = recorded(run.family)
    _, _, t, h, w = SHAPE
    video = pipeline(
        "prompt",
        "negative",
        frames=t,
        height=8 * h,
        width=8 * w,
        fps=pipeline.recording.fps,
        steps=run.steps,
        guidance_scale=run.guidance_scale,
        guidance_rescale=run.guidance_rescale,
        scheduler="ddim",
        eta=run.eta,
        seed=SEED,
        decode=False,
    )
    assert difference(video.latents, pipeline.recording.runs[run.name]) < TOLERANCE
