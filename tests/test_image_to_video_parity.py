"""A picture becomes the latents that VideoCrafter1's and DynamiCrafter's own code made of it, recorded with seeded weights.

See `tests/references/record_image_to_video.py` for how they were made. The checkpoint is written as the published ones are,
and opened by our reader.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from t2v_models.checkpoints import load_unet, open_checkpoint
from t2v_models.families import FAMILIES
from t2v_models.image.latents import per_frame
from t2v_models.loading import load_image_model, load_vae
from t2v_models.pipeline import Pipeline
from t2v_models.sampling.schedule import NoiseSchedule
from tests.references.image_runs import (
    DYNAMICRAFTER,
    FRAMES,
    HEIGHT,
    NETWORKS,
    SEED,
    UNET_FRAMES,
    VIDEOCRAFTER,
    WIDTH,
    ImageRecording,
    ImageRun,
    part,
    picture,
    posterior_noise,
    unet_call,
)
from tests.references.parity import difference
from tests.references.record_image_to_video import SETTINGS

TOLERANCE = 2e-5
ARGUMENTS = {"dtype": torch.float32, "device": torch.device("cpu")}


class Recorded(Pipeline):
    """The recorded checkpoint as a pipeline whose texts are the recorded embeddings."""

    def __init__(self, family: str) -> None:
        self.recording = ImageRecording.load(NETWORKS[family])
        checkpoint, entry = open_checkpoint(self.recording.state_dict(), family=family), FAMILIES[family]
        unet = load_unet(checkpoint)
        image_model = load_image_model(checkpoint, unet, entry, **ARGUMENTS)
        vae = load_vae(checkpoint, **ARGUMENTS)
        super().__init__(unet, vae, None, None, entry.scheduler_config(), entry, image_model)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        prompt, negative = self.recording.contexts()
        return torch.cat([negative if text == "negative" else prompt for text in texts])

    def pictures(self) -> dict[str, object]:
        """The arguments of the recorded pictures."""
        interp = self.family.name.endswith("interp")
        return {"image": picture("first"), **({"end_image": picture("last")} if interp else {})}


@cache
def recorded(family: str) -> Recorded:
    return Recorded(family)


def latents(pipeline: Recorded, run: ImageRun, **options: object) -> Tensor:
    """The latents of a recorded run."""
    return pipeline(
        "prompt",
        "negative",
        frames=FRAMES,
        height=HEIGHT,
        width=WIDTH,
        motion=SETTINGS[run.family]["fps"],
        steps=run.steps,
        eta=run.eta,
        guidance_scale=run.guidance_scale,
        guidance_rescale=run.guidance_rescale,
        image_guidance_scale=run.image_scale,
        scheduler="ddim",
        seed=SEED,
        decode=False,
        **{**pipeline.pictures(), **options},
    ).latents


class AsTheOriginals(NoiseSchedule):
    """VideoCrafter's uniform spacing takes a step more than asked where their number does not divide 1000."""

    is_scaled = True  # so that our own DDIM steps through these timesteps, and not diffusers'

    def timesteps(self, steps: int) -> Tensor:
        return torch.arange(0, 1000, 1000 // (steps - 1)).flip(0) + 1


def is_odd(run: ImageRun) -> bool:
    """Whether the originals took a step more than the run asks for."""
    return 1000 % run.steps != 0 and run.family in ("videocrafter1-i2v", "dynamicrafter-256")


RUNS = [*VIDEOCRAFTER, *DYNAMICRAFTER]
QUICK = [run for run in RUNS if (run.steps, run.eta) == (5, 1.0) and run.image_scale is None]
"""Those that are not left out of the quick part of the tests."""


@pytest.mark.parametrize(
    "run", [pytest.param(run, id=run.name, marks=() if run in QUICK else pytest.mark.slow) for run in RUNS]
)
def test_a_picture_becomes_the_latents_of_the_originals(run: ImageRun, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = recorded(run.family)
    taken = run
    if is_odd(run):
        monkeypatch.setattr(pipeline, "schedule", AsTheOriginals(**vars(pipeline.schedule)))
        taken = replace(run, steps=run.steps + 1)
    wanted = pipeline.recording.values[run.name]
    assert difference(part(latents(pipeline, taken)), wanted) < TOLERANCE


@pytest.mark.parametrize("family", sorted(set(NETWORKS.values())))
def test_tokens_and_latents_of_pictures_are_those_of_the_originals(family: str) -> None:
    pipeline = recorded(family)
    values = pipeline.recording.values
    first, last = (torch.from_numpy(picture(name)).float()[None] / 255 for name in ("first", "last"))
    noise = posterior_noise()[0].transpose(0, 1)
    pair = torch.stack([first, last], dim=1)
    assert difference(part(pipeline.encode_video(pair)), values["image latents"]) < 1e-5
    assert difference(part(pipeline.encode_video(pair, noise=noise)), values["sampled image latents"]) < 1e-5
    inputs = pipeline.image_model.inputs(first, [first], FRAMES, pipeline._encode_stills)
    assert difference(part(inputs.tokens), values["tokens"]) < 1e-5
    assert difference(part(inputs.unconditional), values["grey tokens"]) < 1e-5


@pytest.mark.parametrize("family", sorted(UNET_FRAMES))
def test_the_unet_shares_tokens_over_frames_as_the_originals_do(family: str) -> None:
    """16 frames have 16 of 256 tokens each; any other number of frames shares all of them."""
    pipeline = recorded(family)
    image = torch.from_numpy(picture()).float()[None] / 255
    tokens = pipeline.image_model._tokens(image)
    for frames in UNET_FRAMES[family]:
        call = unet_call(frames, pipeline.config.in_channels)
        prompt, _ = pipeline.recording.contexts()
        output = pipeline.unet(**call, context=prompt, fps=8.0, image_context=per_frame(tokens, frames))
        assert difference(part(output), pipeline.recording.values[f"{frames} frames"]) < 1e-5
