"""What a step holds in memory beyond the weights, counted exactly: tensors are followed, not computed."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from t2v_models.unet import UNet3D, UNetConfig

CONFIG = UNetConfig(channels=(64, 128), num_res_blocks=1, attention_levels=(True, False), head_dim=16, context_dim=64)


class Held(TorchDispatchMode):
    """Adds up the tensors that are alive, and keeps the most there were."""

    def __init__(self, known: list[torch.Tensor]) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage()._cdata for tensor in known}
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.alive = {key: entry for key, entry in self.alive.items() if not entry[0].expired()}
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self.known:
                storage = tensor.untyped_storage()
                self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return result


def held(unet: nn.Module, inputs: list[torch.Tensor]) -> int:
    with torch.no_grad(), Held([*unet.parameters(), *inputs]) as mode:
        unet(*inputs)
    return mode.peak


def inputs(latents: int = 2, frames: int = 16, texts: int = 2) -> list[torch.Tensor]:
    x = torch.empty(latents, 4, frames, 32, 32)
    return [x, torch.zeros(latents), torch.empty(texts, 77, CONFIG.context_dim)]


@pytest.mark.slow
def test_a_step_holds_at_most_seven_tenths_of_what_diffusers_holds():
    diffusers = pytest.importorskip("diffusers", reason="the reference class is in diffusers")
    with FakeTensorMode():
        reference = diffusers.UNet3DConditionModel(
            block_out_channels=CONFIG.channels,
            down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
            up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
            layers_per_block=CONFIG.num_res_blocks,
            attention_head_dim=CONFIG.head_dim,
            cross_attention_dim=CONFIG.context_dim,
        )
        assert held(UNet3D(CONFIG), inputs()) <= 0.7 * held(reference.eval(), inputs())


@pytest.mark.slow
def test_a_latent_shared_by_two_texts_holds_no_more_than_two_latents():
    with FakeTensorMode():
        unet = UNet3D(CONFIG)
        assert held(unet, inputs(latents=1)) <= held(unet, inputs(latents=2))


@pytest.mark.slow
def test_memory_grows_with_the_frames_and_no_faster():
    with FakeTensorMode():
        unet = UNet3D(CONFIG)
        short, long = held(unet, inputs(frames=8)), held(unet, inputs(frames=32))
    assert 3 * short < long < 4.1 * short
