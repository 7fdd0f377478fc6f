"""Our UNet computes what diffusers' and ModelScope's compute, through our converters, to float32's rounding."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch

from t2v_models import load_unet
from tests.references.parity import ROUNDING, TOLERANCE, difference, modelscope_unet
from tests.references.seeding import fill, normal

diffusers = pytest.importorskip("diffusers", reason="the reference class is in diffusers")
ATTENDING, PLAIN = "CrossAttn{}Block3D", "{}Block3D"


@dataclass
class Case:
    """One small UNet3DConditionModel and what it is called with."""

    channels: tuple[int, ...] = (32, 64)
    attention: tuple[bool, ...] = (True, False)
    layers: int = 1
    head_dim: int = 8
    context_dim: int = 32
    size: tuple[int, int, int] = (3, 8, 8)
    timesteps: tuple[float, ...] = (17, 801)
    tokens: int = 7
    more: dict = field(default_factory=dict)

    def reference(self) -> diffusers.UNet3DConditionModel:
        def blocks(direction: str, attention: tuple[bool, ...]) -> list[str]:
            return [(ATTENDING if attends else PLAIN).format(direction) for attends in attention]

        return fill(
            diffusers.UNet3DConditionModel(
                block_out_channels=self.channels,
                down_block_types=blocks("Down", self.attention),
                up_block_types=blocks("Up", self.attention[::-1]),
                layers_per_block=self.layers,
                attention_head_dim=self.head_dim,
                cross_attention_dim=self.context_dim,
                **self.more,
            )
        )


CASES = {
    "two levels": Case(),
    "two layers a block, odd sizes": Case(layers=2, size=(3, 9, 13)),
    "three levels, attention in the last": Case((32, 64, 96), (False, True, True), size=(5, 8, 10), timesteps=(0, 999)),
    "four levels of the published pattern": Case(
        (32, 64, 128, 128), (True, True, True, False), layers=2, head_dim=16, size=(2, 16, 16), context_dim=48
    ),
    "one frame, one video": Case(size=(1, 8, 8), timesteps=(500,), tokens=77),
    "eight channels in, sixteen groups": Case(
        (16, 48), head_dim=16, size=(4, 7, 6), more={"in_channels": 8, "norm_num_groups": 16, "norm_eps": 1e-4}
    ),
    "fractional timesteps": Case((64, 32), (True, True), head_dim=32, timesteps=(0.25, 999.75)),
    "embedded guidance": Case(head_dim=4, more={"time_cond_proj_dim": 20}),
}


SLOW = "four levels of the published pattern"


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=id, marks=[pytest.mark.slow] * (id == SLOW)) for id, case in CASES.items()]
)
def test_it_computes_what_diffusers_computes(case, tmp_path):
    reference = case.reference()
    reference.save_pretrained(tmp_path)
    ours = load_unet(tmp_path)
    timesteps = torch.tensor(case.timesteps)
    x = normal("x", (len(timesteps), reference.config.in_channels, *case.size))
    context = normal("context", (len(timesteps), case.tokens, case.context_dim))
    guidance = None
    if reference.config.time_cond_proj_dim:
        guidance = normal("guidance", (len(timesteps), reference.config.time_cond_proj_dim))
    for dtype, tolerance in ((torch.float32, TOLERANCE), (torch.float64, ROUNDING)):
        inputs = [None if value is None else value.to(dtype) for value in (x, context, guidance)]
        expected = reference.to(dtype)(inputs[0], timesteps, inputs[1], timestep_cond=inputs[2]).sample
        result = ours.to(dtype)(inputs[0], timesteps, inputs[1], guidance=inputs[2])
        assert result.dtype == dtype
        assert difference(result, expected) < tolerance


def test_the_residuals_of_a_controlnet_are_added_where_diffusers_adds_them():
    reference = Case(layers=2).reference()
    ours = load_unet(reference.state_dict())
    x, context, timesteps = normal("x", (2, 4, 3, 8, 8)), normal("context", (2, 7, 32)), torch.tensor([17, 801])
    shapes = [(6, 32, 8, 8)] * 3 + [(6, 32, 4, 4)] + [(6, 64, 4, 4)] * 2
    down = [normal(f"down.{i}", shape) for i, shape in enumerate(shapes)]
    middle = normal("middle", (6, 64, 4, 4))
    residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
    expected = reference(x, timesteps, context, **residuals).sample
    control = {"output": down, "middle": [middle]}
    assert difference(ours(x, timesteps, context, control=control), expected) < TOLERANCE


@pytest.mark.parametrize(
    ("multipliers", "scales", "blocks", "size"),
    [
        ([1, 2], [1.0], 1, (3, 8, 8)),
        pytest.param([1, 2, 3], [1.0, 0.5], 2, (5, 8, 12), marks=pytest.mark.slow),
        ([1, 2], [1.0, 0.5], 1, (1, 4, 6)),
    ],
)
def test_it_computes_what_modelscope_computes(multipliers, scales, blocks, size):
    reference_class = modelscope_unet()
    if reference_class is None:
        pytest.skip("the reference class is in modelscope, which is not installed")
    reference = fill(
        reference_class(
            in_dim=4,
            dim=32,
            y_dim=768,
            context_dim=1024,  # any other is wrong in its decoder
            out_dim=4,
            dim_mult=multipliers,
            num_heads=8,
            head_dim=16,
            num_res_blocks=blocks,
            attn_scales=scales,
            use_scale_shift_norm=True,  # as published; it has no effect
            temporal_attention="True",
        )
    )
    ours = load_unet(reference.state_dict())
    x, context, timesteps = normal("x", (2, 4, *size)), normal("context", (2, 9, 1024)), torch.tensor([20, 981])
    assert difference(ours(x, timesteps, context), reference(x, timesteps, context)) < TOLERANCE
