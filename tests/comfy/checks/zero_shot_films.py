"""Long videos of T2VZeroShot: in chunks, stopped, resumed, saved, and what is refused. Run inside a ComfyUI by in_host.py."""

from types import SimpleNamespace
from unittest import mock

import image_models
import small_image_unets as small
import torch
import zero_shot_node as node
from cancelling import cancelled, hooked


def unfinished(host):
    """The names of the folders of unfinished videos."""
    return {each.name for each in (host.base / "output" / "t2v_unfinished").glob("*")}


def check_a_stopped_video_continues_with_its_finished_chunks_bit_for_bit(host):
    how = {"frames": 9, "chunk": 3, "seed": 21, "resume": True}
    wanted, before = node.run(host, **{**how, "resume": False}), unfinished(host)
    steps = cancelled(host, lambda: node.run(host, **how), after=2 + 2 * 9 + 4)
    assert steps[-1] <= 2 + 2 * 9 + 5
    (kept,) = unfinished(host) - before
    assert len(list((host.base / "output" / "t2v_unfinished" / kept).glob("*.safetensors"))) == 2
    model, calls = node.counted(node.model_of(host))
    assert torch.equal(node.run(host, model, **how), wanted)
    assert len(calls) == 3 + 2 * 9, "the first frame again, and the two chunks that were left"
    calls.clear()
    assert torch.equal(node.run(host, model, **how), wanted)
    assert not calls


def check_other_settings_texts_and_hints_are_another_video(host):
    run, resume = host.module("nodes.host.zero_shot.run"), host.module("nodes.host.zero_shot.resume")
    positive, negative = small.texts()
    model, control = node.model_of(host), small.controlnet()
    weight = "diffusion_model.out.2.weight"
    patched = model.clone()
    patched.add_patches({weight: ("diff", (torch.ones_like(model.model.state_dict()[weight]),))}, 1.0)

    def folder(model=model, positive=positive, about=(1,)):
        return resume.store(model, [positive, negative], about).folder

    pictures = torch.rand(4, 64, 64, 3)
    controlled = [
        host.run("ControlNetApplyAdvanced", positive, negative, control, each, strength, 0.0, 1.0)[0]
        for each, strength in ((pictures, 1.0), (1 - pictures, 1.0), (pictures, 0.5))
    ]
    found = [folder(), folder(patched), folder(positive=negative), folder(about=(2,))]
    found += [folder(positive=node.story(host, blend)) for blend in ([[1.0, 0.0]] * 4, [[0.0, 1.0]] * 4)]
    found += [folder(positive=each) for each in controlled]
    assert len(set(found)) == len(found)
    assert folder() == found[0]
    coded = model.clone()
    coded.set_model_output_block_patch(lambda h, hsp, options: (h, hsp))
    with image_models.heard(host, "nodes.host.unfinished") as lines:
        assert folder(coded) is None
        assert folder(positive=[[positive[0][0], {"foreign": object()}]]) is None
    assert len(lines) == 2
    assert "The video is made without a way to resume it" in lines[0]
    assert run.ZeroShot().resume is False


def check_long_videos_send_few_frames_through_the_model_at_a_time(host):
    model, calls = node.counted(node.model_of(host))
    made = node.run(host, model, frames=40, chunk=8, steps=6, path="there and back")
    assert made.shape == (40, *small.LATENT)
    assert made.isfinite().all()
    assert max(calls) == 16
    assert len(calls) < 6 * 7, "six chunks, of 5 or 6 steps each, after a few steps of the first frame"


def check_every_step_is_reported_with_a_preview_and_the_count_ends_at_the_total(host):
    shown = []
    with hooked(lambda value, preview: shown.append((value, preview))):
        node.run(host, frames=5, chunk=3)
    assert [value for value, _ in shown] == list(range(1, 3 + 2 * 9 + 1)), [value for value, _ in shown]
    assert all(preview is not None for _, preview in shown)


def check_a_cancel_is_obeyed_within_a_step_and_the_next_run_is_as_ever(host):
    wanted = node.run(host)
    steps = cancelled(host, lambda: node.run(host), after=4)
    assert steps[-1] <= 5, steps
    assert torch.equal(node.run(host), wanted)


def check_the_frames_are_decoded_as_they_are_written(host):
    import comfy.utils

    _, _, vae = host.tiny("tiny-v")
    samples = node.run(host, frames=9, chunk=4)
    chunked, decoded = host.module("nodes.host.models.chunked_vae"), []
    how = {"fps": 8.0, "format": "png", "quality": 80, "filename_prefix": "zero", "loop_count": 0, "pingpong": False}
    few = mock.patch.object(chunked, "frames_at_once", return_value=2)
    spy = mock.patch.object(chunked, "decode", lambda vae, x, own=chunked.decode: decoded.append(len(x)) or own(vae, x))
    with few, spy, mock.patch.object(comfy.utils, "PROGRESS_BAR_HOOK", None):
        host.run("T2VSaveVideo", **how, save_output=True, latent={"samples": samples}, vae=vae)
    assert decoded == [2, 2, 2, 2, 1]
    (folder,) = [each for each in (host.base / "output").glob("zero*") if each.is_dir()]
    assert len(list(folder.iterdir())) == 9


def check_frames_that_are_not_finite_are_refused_with_advice(host):
    model = node.model_of(host).clone()
    model.set_model_sampler_post_cfg_function(lambda args: args["denoised"] * float("nan"))
    said = host.refusal(lambda: node.run(host, model))
    assert "1 of 1 frames are not finite, computed in float32: take LoRAs" in said
    check = host.module("nodes.host.zero_shot.run").check_finite
    broken = torch.zeros(4, 4, 8, 8)
    broken[2, 0, 3, 3] = float("inf")
    for dtype, advice in ((torch.float16, "--bf16-unet or --fp32-unet"), (torch.bfloat16, "with --fp32-unet")):
        inner = SimpleNamespace(manual_cast_dtype=dtype)
        said = host.refusal(lambda inner=inner: check(inner, broken))
        assert "1 of 4 frames" in said
        assert advice in said
        assert said.count(". ") == 0
    check(inner, torch.zeros(4, 4, 8, 8))


REFUSED = {
    "video model": "a video model",
    "windows": "context windows",
    "t0": "t0 is 0.9 and t1 is 0.8",
    "few steps": "fall on the same of 4 steps",
    "masks": "3 masks are wired for 4 frames",
    "proportions": "The mask is 64x32",
    "values": "below 0 or above 1",
    "pictures": "a MASK, (1, height, width)",
    "chunk": "A chunk of 1",
    "clips": "holds 2 clips",
    "noise mask": "noise mask",
    "channels": "has 16 channels and this model wants 4",
    "empty": "holds no frames",
    "curve": "curve has 0 among its points",
    "short curve": "The curve has 0 points",
    "smoothing": "smoothing is 12 and all frames have 9 steps",
    "flow": "a flow model",
    "tiles": "before HyperTile",
}


def check_what_does_not_go_together_is_refused_with_one_sentence(host):
    import comfy.model_sampling

    class Flow(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
        pass

    flow = node.model_of(host).clone()
    flow.add_object_patch("model_sampling", Flow(flow.model.model_config))
    ones = torch.ones
    given = {
        "video model": {"model": host.tiny()[0]},
        "windows": {"model": image_models.core_windows(host, node.model_of(host), 2, 1, dim=0)},
        "t0": {"t0": 0.9},
        "few steps": {"t0": 0.75, "steps": 4},
        "masks": {"mask": ones(3, 64, 64)},
        "proportions": {"mask": ones(1, 32, 64)},
        "values": {"mask": 2 * ones(1, 64, 64)},
        "pictures": {"mask": ones(1, 64, 64, 3)},
        "chunk": {"chunk": 1},
        "clips": {"latent": {"samples": torch.zeros(2, 4, 3, 8, 8)}},
        "noise mask": {"latent": {**node.zeros(4), "noise_mask": ones(1, 64, 64)}},
        "channels": {"latent": {"samples": torch.zeros(4, 16, 8, 8)}},
        "empty": {"latent": node.zeros(0)},
        "curve": {"path": "curve", "curve": "0;1"},
        "short curve": {"path": "curve"},
        "smoothing": {"smoothing": 12},
        "flow": {"model": flow},
        "tiles": {"model": host.run("HyperTile", node.model_of(host), 32, 2, 0, False)[0]},
    }
    for name, changes in given.items():  # before the first step
        said = host.refusal(lambda changes=changes: node.run(host, **changes))
        assert REFUSED[name] in said, (name, said)
        assert said.endswith("."), said
        assert said.count(". ") == 0, said


def check_unused_pictures_of_the_latent_are_announced(host):
    pictured = {"samples": torch.ones(4, *small.LATENT)}
    with image_models.heard(host, "nodes.host.zero_shot.run") as lines:
        assert torch.equal(node.run(host, latent=pictured), node.run(host))
    assert "pictures are not used" in lines[0]
