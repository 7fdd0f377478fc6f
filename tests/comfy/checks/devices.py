"""The nodes where the host computes on a GPU and keeps latents, noise and texts on the processor, as it does."""

import contextlib
import importlib.util
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import image_models


def _fake_cuda():
    spec = importlib.util.spec_from_file_location("fake_cuda", Path(__file__).parents[2] / "support" / "fake_cuda.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _gpu(intermediate):
    """Within it the host finds a GPU with room for everything, and keeps what goes from node to node on `intermediate`.

    The GPU is this machine's, or a fake one where it has none.
    """
    import comfy.model_management as management
    import torch

    module = _fake_cuda()
    kept = module.DEVICE if intermediate == "cuda" else torch.device("cpu")
    room = lambda dev=None, torch_free_too=False, **_: (8 << 30, 8 << 30) if torch_free_too else 8 << 30  # noqa: E731
    changes = {
        "get_torch_device": lambda: module.DEVICE,
        "text_encoder_device": lambda: module.DEVICE,
        "intermediate_device": lambda: kept,
        "vae_device": lambda: module.DEVICE,
        "get_free_memory": room,
        "get_total_memory": room,
        "vram_state": management.VRAMState.NORMAL_VRAM,
        "cpu_state": management.CPUState.GPU,
        "should_use_fp16": lambda *_, **__: False,
        "should_use_bf16": lambda *_, **__: False,
        "soft_empty_cache": lambda force=False: None,
    }
    about = SimpleNamespace(major=7, minor=0, name="fake", total_memory=8 << 30)
    management.unload_all_models()
    with contextlib.ExitStack() as stack:
        for name, value in changes.items():
            stack.enter_context(mock.patch.object(management, name, value))
        if torch.cuda.is_available():
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
        else:
            gpu = {"get_device_properties": about, "synchronize": None, "current_device": 0, "set_device": None}
            for name, answer in gpu.items():
                stack.enter_context(mock.patch(f"torch.cuda.{name}", lambda *_, answer=answer: answer))
            stack.enter_context(module.FakeCuda())
        yield
        management.unload_all_models()


def _scaled(host, model):
    """The same with VideoCrafter2's scale of the signal."""
    schedule = host.module("t2v_models.sampling.schedule").NoiseSchedule.from_config(
        model.model.scheduler, scale_base=0.7
    )
    made = host.module("nodes.host.models.model_sampling").make_model_sampling(schedule, model.model.model_config)
    scaled = model.clone()
    scaled.add_object_patch("model_sampling", made)
    return scaled


def _graphs(host):
    """What the nodes that compute give, one after the other, by name."""
    import torch

    model, clip, vae = host.run("T2VModelLoader", "tiny-v", "default")[:3]
    positive, negative = host.conds(clip, "a red circle", "blue")
    story = host.run("T2VStory", clip, host.story, 10, 8.0)[:2]
    (latent,) = host.run("T2VEmptyLatent", 32, 32, 4, 1)
    (long,) = host.run("T2VEmptyLatent", 32, 32, 10, 1)
    settings = (1, 2, 4.0, "ddim", "diffusers", 1.0)
    changed = model.clone()
    key = "diffusion_model.middle_block.0.in_layers.2.weight"
    changed.add_patches({key: ("diff", (torch.full_like(model.model.state_dict()[key], 0.1, device="cpu"),))}, 1.0)
    patched = {
        "weights": changed,
        "windows": host.run("T2VWindows", model, 4, 2, "pyramid", False)[0],
        "loop": host.run("T2VWindows", model, 4, 2, "pyramid", True)[0],
        "free noise": host.run("T2VFreeNoise", model, 4, 2, "pyramid")[0],
        "free init": host.run("T2VFreeInit", model, 2, "butterworth", 0.25, 0.25, 4)[0],
    }
    yield "sampler", host.run("T2VVideoSampler", model, positive, negative, latent, *settings)[0]["samples"]
    yield (
        "rescaled",
        host.run("T2VVideoSampler", model, positive, negative, latent, *settings, cfg_rescale=0.7)[0]["samples"],
    )
    yield (
        "KSampler",
        host.run("KSampler", model, 1, 2, 4.0, "euler", "normal", positive, negative, latent, 1.0)[0]["samples"],
    )
    for sampler in ("ddim", "unipc (diffusers)"):
        how = (1, 4, 4.0, sampler, "diffusers", 1.0)
        for name, each in (("plain", model), ("scaled", _scaled(host, model))):
            samples = host.run("T2VVideoSampler", each, positive, negative, latent, *how)[0]["samples"]
            yield f"{sampler} {name}", samples
    for name, each in patched.items():
        yield name, host.run("T2VVideoSampler", each, *story, long, *settings)[0]["samples"]
    size = {"frames": 9, "width": 32, "height": 32, "fps": 8.0, "context_length": 4, "context_overlap": 2}
    how = {"fuse_method": "pyramid", "closed_loop": False, "resume": False, "seed": 3, "steps": 2, "cfg": 4.0}
    for method in host.module("t2v_models.films.film").METHODS:
        yield f"film {method}", host.run("T2VFilm", model, clip, host.story, method=method, **size, **how)[0]["samples"]
    images = torch.linspace(0, 1, 4 * 32 * 32 * 3).view(4, 32, 32, 3)
    (encoded,) = host.run("T2VVAEEncodeFrames", images, vae, 0, 0)
    yield "encoded", encoded["samples"]
    yield "decoded", host.run("T2VVAEDecodeFrames", encoded, vae)[0]
    again = (1, 4, 4.0, "ddim", "diffusers", 0.5)
    yield "video to video", host.run("T2VVideoSampler", model, positive, negative, encoded, *again)[0]["samples"]
    fresh = image_models.Fresh(host)
    yield "a picture", image_models.sample(fresh, image_models.animate(fresh, "dynamicrafter-256", image_cfg=3.0), 1)
    for name, conds in (("continued", (positive, negative)), ("continued story", story)):
        yield name, host.run("T2VContinue", model, *conds, encoded, 2, 1, 3, 4.0)[0]["samples"]


def check_every_node_computes_on_a_gpu_as_on_the_processor(host):
    wanted, worst = dict(_graphs(host)), {}
    for intermediate in ("cpu", "cuda"):  # the latter is the host's --gpu-only
        with _gpu(intermediate):
            for name, value in _graphs(host):
                assert value.device.type == intermediate, (name, value.device)
                worst[name, intermediate] = float((value.cpu() - wanted[name]).abs().max() / wanted[name].std())
    assert len(worst) == 2 * len(wanted)
    assert max(worst.values()) < 1e-3, worst
    return max(worst.values())
