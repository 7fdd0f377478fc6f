"""Everything computes on the device of the model: this machine's GPU, or a fake one where it has none."""

from contextlib import nullcontext

import pytest
import torch

from t2v_models import Film, load_pipeline
from t2v_models.builtin_model import BUILT_IN_FOLDER
from t2v_models.checkpoints import open_checkpoint
from t2v_models.films.settings import METHODS
from t2v_models.pipeline import Pipeline
from t2v_models.sampling.schedulers import SCHEDULERS
from t2v_models.sampling.windows import Windows
from t2v_models.training.builtin import autoencoder, batches, clips, text_encoder, unet
from t2v_models.training.muon import Muon, matrices

from .support.fake_cuda import FakeCuda

REAL = torch.cuda.is_available()
STORY = "0-50%: a red circle moves right / 50%-100%: a blue square moves up"


@pytest.fixture
def gpu():
    """This machine's GPU, in full float32, or a fake one."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False), nullcontext() if REAL else FakeCuda():
        yield


def on_cuda(build):
    with torch.device("cuda"):
        return build()


@pytest.mark.skipif(REAL, reason="this machine has a GPU, so no fake one is used")
def test_fake_device_raises_where_devices_mix(gpu):
    total = torch.zeros(1, 8, 4, device="cuda")
    with pytest.raises(Exception, match="device"):
        total.index_add_(1, torch.arange(8), total)
    with pytest.raises(Exception, match="device"):
        torch.nn.functional.conv2d(torch.zeros(1, 3, 8, 8), torch.zeros(3, 3, 3, 3, device="cuda"))
    with pytest.raises(Exception, match="device"):
        torch.zeros(8)[torch.zeros(1, dtype=torch.long, device="cuda")]
    with pytest.raises(Exception, match="generator"):
        torch.randn(8, device="cuda", generator=torch.Generator())
    with pytest.raises(Exception, match="numpy"):
        total.numpy()


@pytest.mark.parametrize("windows", [None, Windows(8, 4)], ids=["whole", "in windows of frames"])
@pytest.mark.parametrize("texts", [(2,), (2, 16)], ids=["one text", "a text for every frame"])
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float16, marks=pytest.mark.slow)])
@torch.inference_mode()
def test_unet_computes_on_the_device_of_its_weights(gpu, windows, texts, dtype):
    model = unet.build().to(dtype)
    options = {} if windows is None else {"temporal_windows": windows.over(16).temporal()}
    given = torch.randn(2, 4, 16, 8, 8).to(dtype), torch.ones(2, 16), torch.randn(*texts, 77, 128).to(dtype)
    here = model(*given, options=options)
    there = model.to("cuda")(*(each.to("cuda") for each in given), options=options)
    assert there.device.type == "cuda"
    assert (there.cpu() - here).abs().max() < {torch.float32: 1e-4, torch.float16: 1e-2}[dtype] * here.abs().max()


@pytest.mark.slow
def test_frames_and_latents_move_to_the_autoencoder_and_frames_return_to_the_cpu(gpu):
    checkpoint = open_checkpoint(BUILT_IN_FOLDER)
    parts = on_cuda(unet.build), on_cuda(autoencoder.build), None, None
    pipe = Pipeline(*parts, checkpoint.scheduler_config(), checkpoint.family)
    latents = pipe.encode_video(torch.rand(1, 16, 64, 64, 3))
    assert latents.shape == (1, 4, 16, 8, 8)
    frames = torch.cat(list(pipe.decode(torch.randn(4, 16, 8, 8))))
    assert (frames.device.type, frames.shape) == ("cpu", (16, 64, 64, 3))


@pytest.mark.slow
def test_training_step_computes_on_the_device_of_the_model(gpu):
    encoder = on_cuda(lambda: text_encoder.build_text_encoder(827))
    model = on_cuda(lambda: unet.WithPoses(unet.build()))
    batch = batches.Batch(
        clean=torch.randn(2, 4, 16, 8, 8),
        noise=torch.randn(2, 4, 16, 8, 8),
        timesteps=torch.ones(2, 16, dtype=torch.long),
        tokens=torch.ones(3, 77, dtype=torch.long),
        prompt_index=torch.zeros(2, 16, dtype=torch.long),
        weight=torch.ones(2, 16),
        poses=torch.randn(2, 16, 2, 5),
    ).to("cuda")
    assert unet.batch_loss(model, encoder, batch, unet.alphas_cumprod().to("cuda")).device.type == "cuda"
    for matrix in matrices(model):
        matrix.grad = torch.ones_like(matrix)
    Muon(matrices(model)).step()
    assert clips.encode(on_cuda(autoencoder.build), torch.rand(2, 3, 3, 64, 64)).device.type == "cpu"


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_gpu_makes_the_video_of_the_cpu(gpu, scheduler):
    call = {"seed": 3, "scheduler": scheduler, "frames": 4, "steps": 4}
    here, there = (load_pipeline("built-in", device=d, dtype=torch.float32) for d in ("cpu", "cuda"))
    prompts = ["a red circle moves right", "a blue star moves up on a white background"]
    assert (here(prompts, **call).frames - there(prompts, **call).frames).abs().max() < 1 / 255


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_gpu_makes_the_film_of_the_cpu(gpu, method):
    pipelines = (load_pipeline("built-in", device=d, dtype=torch.float32) for d in ("cpu", "cuda"))
    here, there = (
        torch.cat(list(Film(p, STORY, frames=24, steps=3, method=method, seed=5).frames())) for p in pipelines
    )
    assert (here - there).abs().max() < 1 / 255


@pytest.mark.slow
def test_gpu_continues_a_clip_as_the_cpu_does(gpu):
    clip = torch.rand(3, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    pipelines = (load_pipeline("built-in", device=d, dtype=torch.float32) for d in ("cpu", "cuda"))
    here, there = (torch.cat(list(Film(p, STORY, frames=2, steps=4, clip=clip, seed=5).frames())) for p in pipelines)
    assert (here - there).abs().max() < 1 / 255
