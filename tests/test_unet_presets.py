"""The published networks, by the number, names and shapes of their weights."""

from __future__ import annotations

import pytest

from t2v_models.unet import PRESETS, UNet3D

COUNTS = {
    "modelscope": (1480, 1_411_233_860),
    "videocrafter2": (1484, None),
    "videocrafter1-512": (1196, None),
    "videocrafter1-1024": (1200, None),
    "videocrafter1-i2v": (1516, None),
}
"""Tensors and parameters."""

QUICK_PRESETS = ("modelscope", "videocrafter1-i2v")


@pytest.mark.parametrize(
    "preset", [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK_PRESETS)) for name in PRESETS]
)
def test_the_published_networks_have_their_number_of_weights_and_their_names(preset):
    network = UNet3D(PRESETS[preset], device="meta")
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    tensors, parameters = COUNTS.get(preset, (None, None))
    assert tensors in (None, len(shapes))
    assert parameters in (None, sum(value.numel() for value in network.parameters()))
    expected = {
        "time_embed.2.weight": (1280, 1280),
        "input_blocks.0.0.weight": (320, PRESETS[preset].in_channels, 3, 3),
        "init_attn.proj_in.weight": (512, 320),
        "input_blocks.1.0.in_layers.2.weight": (320, 320, 3, 3),
        "input_blocks.1.0.emb_layers.1.bias": (320,),
        "input_blocks.4.0.skip_connection.weight": (640, 320, 1, 1),
        "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 1024),
        "input_blocks.1.1.proj_in.weight": (320, 320),
        "input_blocks.1.temporal.transformer_blocks.0.ff.net.0.proj.weight": (2560, 320),
        "input_blocks.3.0.op.weight": (320, 320, 3, 3),
        "middle_block.temporal.transformer_blocks.0.attn1.to_out.0.weight": (1280, 1280),
        "middle_block.2.out_layers.3.weight": (1280, 1280, 3, 3),
        "output_blocks.2.1.conv.weight": (1280, 1280, 3, 3),
        "output_blocks.5.2.conv.weight": (1280, 1280, 3, 3),
        "output_blocks.11.temporal.proj_out.weight": (320, 320),
        "out.0.bias": (320,),
        "out.2.weight": (4, 320, 3, 3),
    }
    if PRESETS[preset].temporal_convolution:
        expected["input_blocks.1.0.temporal_conv.conv1.2.weight"] = (320, 320, 3, 1)
        expected["middle_block.2.temporal_conv.conv4.3.bias"] = (1280,)
    assert {name: shapes.get(name) for name in expected} == expected
