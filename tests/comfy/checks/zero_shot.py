"""T2VZeroShot makes what diffusers makes, and the same in chunks and by parts. Run inside a ComfyUI by in_host.py."""

from unittest import mock

import image_models
import small_image_unets as small
import torch
import zero_shot_node as node
from cross_frame_node import ANCHORS
from zero_shot_node import differ

CLOSE = 1e-4


def recorded_run(host, run, model=None, **changes):
    """What the node makes of a recorded run, scaled as the network has it."""
    model = model or node.model_of(host, run.layout, **({"v_prediction": True} if run.v_prediction else {}))
    t0, t1 = (part / run.steps for part in run.parts)
    given = {"steps": run.steps, "cfg": run.guidance_scale, "motion_x": run.motion[0], "motion_y": run.motion[1]}
    latent = changes.pop("latent", node.zeros(4, *run.size))
    return model.model.process_latent_in(node.run(host, model, latent=latent, t0=t0, t1=t1, **given, **changes))


def check_whole_runs_are_those_of_diffusers(host):
    runs, found = image_models.references().zero_shot_runs, {}
    for run in runs.RUNS:
        found[run.name] = differ(recorded_run(host, run), runs.load()[run.name])
    assert max(found.values()) < CLOSE, found
    return found


def check_conditionings_together_and_one_by_one_and_all_chunks_make_what_diffusers_makes(host):
    runs, found = image_models.references().zero_shot_runs, {}
    for run in runs.RUNS[:2]:
        model, calls = node.counted(node.model_of(host, run.layout))
        wanted = runs.load()[run.name]
        for size in (2, 3):
            found[run.name, size] = differ(recorded_run(host, run, model, chunk=size), wanted)
        assert max(calls) == 6, "positive and negative are evaluated together"
        calls.clear()
        with node.one_conditioning_at_a_time():
            found[run.name, "one by one"] = differ(recorded_run(host, run, model), wanted)
        assert max(calls) == 4
        assert len(calls) == 2 * (50 + 3), "three steps are done once more"
    assert max(found.values()) < CLOSE, found
    return {str(key): value for key, value in found.items()}


def check_a_video_latent_is_folded_and_unfolded(host):
    run = image_models.references().zero_shot_runs.RUNS[2]
    made = recorded_run(host, run, latent={"samples": torch.zeros(1, 4, 4, *run.size)})
    assert made.shape == (1, 4, 4, *run.size)
    assert torch.equal(made[0].movedim(1, 0), recorded_run(host, run))


def check_guidance_scale_1_leaves_the_negative_text_out(host):
    model, calls = node.counted(node.model_of(host))
    positive, negative = small.texts()
    plain = node.run(host, model, cfg=1.0)
    assert max(calls) == 4
    for made in (
        node.run(host, cfg=1.0, texts=(positive, positive)),
        node.run(host, cfg=3.0, texts=(positive, positive)),
    ):
        assert differ(made, plain) < CLOSE
    assert differ(node.run(host, cfg=1.0, chunk=2), plain) < CLOSE
    assert differ(node.run(host, texts=(positive, negative)), plain) > 1e-2


def check_areas_and_masks_of_conditionings_work_in_every_chunk(host):
    positive, negative = small.texts()
    (left,) = host.run("ConditioningSetArea", negative, 32, 64, 0, 0, 1.0)
    (both,) = host.run("ConditioningCombine", positive, left)
    masks = (torch.arange(8) < 4).float().expand(5, 8, 8).clone()
    masks[3:] = 1 - masks[3:]
    (masked,) = host.run("ConditioningSetMask", negative, masks, "default", 1.0)
    (more,) = host.run("ConditioningCombine", both, masked)
    for texts in ((both, negative), (more, negative)):
        whole = node.run(host, texts=texts, frames=5)
        with node.one_conditioning_at_a_time():
            assert differ(node.run(host, texts=texts, frames=5), whole) < CLOSE
        for size in (2, 3):
            assert differ(node.run(host, texts=texts, frames=5, chunk=size), whole) < CLOSE
        assert differ(whole, node.run(host, frames=5)) > 1e-2


def check_every_anchor_is_the_attention_that_its_name_says(host):
    cross_frame = host.module("nodes.host.zero_shot.cross_frame")

    def written_out(model, anchor, seed):
        frames = 4

        def patch(n, context, value, options):
            rows = range(len(context))
            keys = [[context[row - row % frames + k] for k in ANCHORS[anchor](row % frames, frames)] for row in rows]
            keys = torch.stack([torch.cat(each) for each in keys])
            return n, keys, keys

        model = model.clone()
        model.set_model_attn1_patch(patch)
        return model

    made = {}
    for anchor in ANCHORS:
        made[anchor] = node.run(host, anchor=anchor)
        with mock.patch.object(cross_frame, "patch", written_out):
            assert differ(node.run(host, anchor=anchor), made[anchor]) < 1e-5, anchor
        assert differ(made[anchor], made["first"]) > 1e-2 or anchor == "first"
    shuffled = node.run(host, anchor="shuffled groups", frames=12)
    assert torch.equal(shuffled, node.run(host, anchor="shuffled groups", frames=12))
    assert differ(shuffled, node.run(host, frames=12)) > 1e-2


def check_chunks_make_the_whole_with_every_kind_of_sampler(host):
    kinds = {"ddim": "diffusers", "dpmpp_2m": "karras", "euler_ancestral": "diffusers", "dpmpp_2m_sde": "karras"}
    for sampler, scheduler in {**kinds, "lcm": "normal", "ddim (eta)": "diffusers"}.items():
        how = {"sampler_name": sampler, "scheduler": scheduler, "frames": 5, "steps": 6, "t0": 0.4}
        whole = node.run(host, **how)
        assert whole.isfinite().all()
        assert differ(node.run(host, chunk=3, **how), whole) < CLOSE, (sampler, scheduler)
        assert len({float(frame.sum()) for frame in whole}) == 5, "no frame is another's copy"


def check_a_long_video_in_chunks_of_8_is_the_whole_one(host):
    for path in ("straight", "circle"):
        whole = node.run(host, frames=20, path=path)
        assert differ(node.run(host, frames=20, path=path, chunk=8), whole) < CLOSE


def check_one_frame_is_what_ksampler_makes(host):
    positive, negative = small.texts()
    for model in (node.model_of(host), node.model_of(host, v_prediction=True), node.model_of(host, "sdxl")):
        for scheduler in ("normal", "karras"):
            how = ("euler", scheduler)
            (wanted,) = host.run("KSampler", model, 7, 6, 3.0, *how, positive, negative, node.zeros(1), 1.0)
            made = node.run(host, model, frames=1, steps=6, sampler_name=how[0], scheduler=how[1])
            assert differ(made, wanted["samples"]) < CLOSE


def check_the_first_frame_does_not_depend_on_the_others_and_these_move(host):
    four, nine = node.run(host), node.run(host, frames=9)
    assert differ(nine[:4], four) < CLOSE
    still, moved = node.run(host, motion_x=0.0), node.run(host, motion_x=0.0, motion_y=64.0)
    for other in (
        still,
        moved,
        node.run(host, path="zoom", motion_x=8.0),
        node.run(host, path="curve", curve="0,0 0,200"),
    ):
        assert differ(other[:1], four[:1]) < CLOSE
        assert differ(other[1:], four[1:]) > 1e-2
    assert differ(node.run(host, warp="bilinear", motion_x=40.0)[1:], node.run(host, motion_x=40.0)[1:]) > 1e-3
    assert differ(node.run(host, t1=0.9)[1:], four[1:]) > 1e-2


def check_a_mask_smooths_the_background_alone(host):
    plain, ones = node.run(host), torch.ones(1, 64, 64)
    assert torch.equal(node.run(host, mask=ones), plain), "all is foreground"
    half = ones.clone()
    half[..., 24:] = 0
    smooth = node.run(host, mask=half)
    assert torch.equal(smooth[:1], plain[:1])
    assert differ(smooth[1:], plain[1:]) > 1e-2
    for same in (half[0], half.expand(4, -1, -1)):
        assert torch.equal(node.run(host, mask=same), smooth)
    assert differ(node.run(host, mask=half, chunk=2), smooth) < CLOSE
    several = torch.stack([half[0].roll(k, -1) for k in range(4)])
    assert differ(node.run(host, mask=several, chunk=2), node.run(host, mask=several)) < CLOSE


def check_alternate_frames_become_the_mean_of_their_neighbours_in_the_chosen_steps(host):
    smoothing = host.module("nodes.host.zero_shot.smoothing").smoothing
    parities = []

    def spy(x0, parity, own=smoothing.interleaved):
        parities.append((len(x0), parity))
        return own(x0, parity)

    with mock.patch.object(smoothing, "interleaved", spy):
        made = node.run(host, frames=7, smoothing=2)
    assert parities == [(7, 0), (7, 1)]
    plain = node.run(host, frames=7)
    assert differ(made, plain) > 1e-2
    assert (made.diff(dim=0)[1:]).square().mean() < plain.diff(dim=0)[1:].square().mean(), "neighbours are more alike"
