"""Our UNet computes what VideoCrafter's, DynamiCrafter's and T2V-Turbo's recorded networks computed.

The weights are regenerated from their names, go through our detection and converters, and meet recorded outputs; see
`tests/references/record.py` for how they were made.
"""

from __future__ import annotations

import pytest
import torch

from t2v_models import UNet3D, inspect, load_unet
from t2v_models.checkpoints import open_checkpoint
from t2v_models.checkpoints.lora import apply_loras
from tests.references.fixtures import FOLDER, Recording
from tests.references.parity import TOLERANCE, difference

NAMES = sorted(path.stem for path in FOLDER.glob("*.npz"))


def compute(unet: UNet3D, recording: Recording) -> torch.Tensor:
    """Our network's output for a recorded call."""
    return unet(
        recording.seeded("x"),
        recording.given("timesteps"),
        recording.seeded("context"),
        fps=recording.given("fps"),
        guidance=recording.given("guidance"),
        motion_guidance=recording.given("motion_guidance"),
        image_context=recording.seeded("image_context"),
    )


def unet_of(recording: Recording, tmp_path) -> UNet3D:
    state_dict = recording.state_dict()
    if not recording.lora:
        return load_unet(state_dict)
    path = tmp_path / "unet_lora.pt"
    torch.save(recording.lora_tensors(), path)
    base = open_checkpoint(state_dict).unet()
    apply_loras(base, [(path, 1.0)])
    return load_unet(base)


@pytest.mark.parametrize("name", NAMES)
def test_it_computes_what_was_recorded(name, tmp_path):
    recording = Recording.load(name)
    unet = unet_of(recording, tmp_path)
    assert difference(compute(unet, recording), recording.output) < TOLERANCE


def test_every_family_outside_pypi_is_recorded():
    assert {"videocrafter2", "videocrafter1-512", "videocrafter1-1024", "videocrafter1-i2v"} <= set(NAMES)
    assert {"dynamicrafter-256", "dynamicrafter-512", "t2v-turbo-lora", "t2v-turbo-v2"} <= set(NAMES)
    assert all(path.stat().st_size < 16_000 for path in FOLDER.glob("*.npz"))


@pytest.mark.parametrize("name", NAMES)
def test_the_layout_of_a_recorded_network_is_recognised_with_and_without_the_prefix(name):
    weights = Recording.load(name).state_dict()
    wrapped = {f"model.diffusion_model.{key}": value for key, value in weights.items()}
    for state_dict in (weights, wrapped):
        info = inspect(state_dict)
        assert info.layout == "videocrafter"
        assert info.config.head_dim == 16
        assert info.parameters == sum(value.numel() for value in weights.values())


@pytest.mark.parametrize("name", ["videocrafter1-1024", "dynamicrafter-256"])
def test_a_wrong_weight_is_noticed(name, tmp_path):
    """The parity above can fail: each of the parts that only these networks have counts."""
    recording = Recording.load(name)
    unet = unet_of(recording, tmp_path)
    for part in ("relative_position_v", "relative_position_k", "attn2.image_scale", "attn2.to_k_ip", "fps_embedding.2"):
        found = next((value for key, value in unet.named_parameters() if part in key), None)
        if found is not None:
            found.mul_(2)
            assert difference(compute(unet, recording), recording.output) > 100 * TOLERANCE, part
            found.div_(2)
    assert difference(compute(unet, recording), recording.output) < TOLERANCE
