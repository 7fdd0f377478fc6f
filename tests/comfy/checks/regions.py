"""Core's areas and masks of a conditioning on clips: all its nodes, by core's KSampler and by T2VVideoSampler."""

from __future__ import annotations


def left_half(frames=1, size=64):
    import torch

    mask = torch.zeros(frames, size, size)
    mask[:, :, : size // 2] = 1.0
    return mask


def samplers(host):
    """Functions from positive, negative and latents to a result, of both sampler nodes."""
    model, clip, _ = host.tiny()
    (negative,) = host.conds(clip, "")

    def ours(positive, samples):
        how = (1, 2, 4.0, "euler", "normal", 1.0)
        return host.run("T2VVideoSampler", model, positive, negative, {"samples": samples}, *how)[0]["samples"]

    def core(positive, samples):
        return host.ksample(model, None, samples, conds=(positive, negative), cfg=4.0, steps=2, seed=1)

    return ours, core


def latents(clips=1, frames=4, side=16):
    import torch

    return torch.zeros(clips, 4, frames, side, side)


def prompts(host):
    return host.conds(host.tiny()[1], "a red circle", "a blue square")


def check_a_share_of_the_picture_is_the_area_in_pixels(host):
    red, blue = prompts(host)
    (absolute,) = host.run("ConditioningSetArea", red, 64, 128, 64, 0, 1.0)
    (share,) = host.run("ConditioningSetAreaPercentage", red, 0.5, 1.0, 0.5, 0.0, 1.0)
    (part,) = host.run("ConditioningSetAreaPercentageVideo", red, 0.5, 1.0, 1.0, 0.5, 0.0, 0.0, 1.0)
    for sample in samplers(host):
        wanted = sample(absolute + blue, latents())
        assert host.difference(wanted, sample(blue, latents())) > 1e-3, "the area changed nothing"
        for each in (share, part):
            assert host.difference(wanted, sample(each + blue, latents())) < 1e-5


def check_mask_bounds_are_the_area_around_the_mask(host):
    red, blue = prompts(host)
    for mask in (left_half(), left_half(4), left_half(size=128)):
        (bounds,) = host.run("ConditioningSetMask", red, mask, "mask bounds", 1.0)
        (masked,) = host.run("ConditioningSetMask", red, mask, "default", 1.0)
        (area,) = host.run("ConditioningSetArea", masked, 64, 128, 0, 0, 1.0)
        for sample in samplers(host):
            one, other = sample(bounds + blue, latents()), sample(area + blue, latents())
            assert host.difference(one, other) < 1e-4
            assert host.difference(one, sample(blue, latents())) > 1e-3


def check_a_mask_of_nothing_and_one_of_all_are_taken(host):
    import torch

    red, blue = prompts(host)
    for mask in (torch.zeros(1, 64, 64), torch.ones(1, 64, 64), torch.ones(64, 64), torch.ones(4, 1, 64, 64)):
        for how in ("mask bounds", "default"):
            (entry,) = host.run("ConditioningSetMask", red, mask, how, 1.0)
            for sample in samplers(host):
                assert sample(entry + blue, latents()).isfinite().all()
    sample = samplers(host)[0]
    (nothing,) = host.run("ConditioningSetMask", red, torch.zeros(1, 64, 64), "mask bounds", 1.0)
    assert host.difference(sample(nothing + blue, latents()), sample(blue, latents())) < 1e-4


def check_bounds_are_those_that_the_host_finds_for_pictures(host):
    import comfy.samplers
    import torch

    regions, generator = host.module("nodes.host.models.regions"), torch.Generator().manual_seed(0)
    for _ in range(50):
        mask = torch.zeros(3, 16, 24)
        top, left = (int(torch.randint(0, n, (1,), generator=generator)) for n in (16, 24))
        mask[1, top : top + 5, left : left + 11] = 1.0
        entries = [{"mask": mask, "set_area_to_bounds": True}]
        comfy.samplers.resolve_areas_and_cond_masks_multidim(entries, torch.Size((16, 24)), "cpu")
        assert regions.bounds(mask[None]) == entries[0]["area"]


def check_a_mask_for_each_frame_changes_its_frame_only(host):
    import torch

    regions = host.module("nodes.host.models.regions")
    mask = torch.zeros(4, 16, 16)
    mask[2] = 1.0
    entry = {"mask": mask, "set_area_to_bounds": True}
    out = regions.resolved(entry, (1, 4, 4, 16, 16))
    assert out["area"] == (16, 16, 0, 0)
    assert out["mask"].shape == (1, 4, 16, 16)
    assert torch.equal(out["mask"][0], mask)
    assert entry["set_area_to_bounds"], "the given conditioning was changed"


def check_masks_of_repeated_clips_belong_to_their_clips(host):
    import torch

    red, blue = prompts(host)
    first, second = left_half(4), left_half(4).flip(-1)
    (both,) = host.run("ConditioningSetMask", red, torch.cat([first, second]), "default", 1.0)
    (alone,) = host.run("ConditioningSetMask", red, first, "default", 1.0)
    (repeated,) = host.run("ConditioningSetMask", red, first.repeat(2, 1, 1), "default", 1.0)
    for sample in samplers(host):
        two, one = sample(both + blue, latents(2)), sample(alone + blue, latents(2))
        assert host.difference(two[:1], one[:1]) < 1e-4
        assert host.difference(two[1:], one[1:]) > 1e-3
        assert host.difference(one, sample(repeated + blue, latents(2))) < 1e-5


def check_masks_of_another_length_are_refused_in_a_sentence(host):
    red, blue = prompts(host)
    for frames in (2, 3, 5):
        (entry,) = host.run("ConditioningSetMask", red, left_half(frames), "default", 1.0)
        for sample in samplers(host):
            said = host.refusal(lambda sample=sample, entry=entry: sample(entry + blue, latents()))
            assert f"{frames} pictures" in said, said


def check_a_share_of_the_frames_needs_a_video_latent(host):
    red, blue = prompts(host)
    (part,) = host.run("ConditioningSetAreaPercentageVideo", red, 1.0, 1.0, 0.5, 0.0, 0.0, 0.5, 1.0)
    for sample in samplers(host):
        assert sample(part + blue, latents()).isfinite().all()
        said = host.refusal(lambda sample=sample: sample(part + blue, latents()[0].movedim(1, 0).contiguous()))
        assert "T2VLatentLayout" in said


def check_areas_hold_in_context_windows(host):
    model, clip, _ = host.tiny()
    red, blue = prompts(host)
    (negative,) = host.conds(clip, "")
    (model,) = host.run("T2VWindows", model, 4, 2, "pyramid", False)
    (absolute,) = host.run("ConditioningSetArea", red, 64, 128, 64, 0, 1.0)
    (share,) = host.run("ConditioningSetAreaPercentage", red, 0.5, 1.0, 0.5, 0.0, 1.0)
    (bounds,) = host.run("ConditioningSetMask", red, left_half(8), "mask bounds", 1.0)
    out = [
        host.ksample(model, None, latents(frames=8), conds=(each + blue, negative), steps=2)
        for each in (absolute, share, bounds)
    ]
    assert host.difference(out[0], out[1]) < 1e-5
    assert out[2].isfinite().all()


def check_boxes_of_gligen_are_refused_on_clips(host):
    red, blue = prompts(host)
    boxed = [[red[0][0], {**red[0][1], "gligen": ("position", None, [])}]]
    for sample in samplers(host):
        assert "GLIGEN" in host.refusal(lambda sample=sample: sample(boxed + blue, latents()))


def check_an_area_outside_the_clip_is_refused_with_its_place(host):
    red, blue = prompts(host)
    outside = {
        "column 1024 and there are 128 columns": ("ConditioningSetArea", 64, 64, 1024, 0, 1.0),
        "row 128 and there are 128 rows": ("ConditioningSetArea", 64, 64, 0, 128, 1.0),
        "column 128 and there are 128 columns": ("ConditioningSetAreaPercentage", 1.0, 1.0, 1.0, 0.0, 1.0),
        "frame 4 and there are 4 frames": ("ConditioningSetAreaPercentageVideo", 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0),
    }
    for place, (node, *area) in outside.items():
        (entry,) = host.run(node, red, *area)
        for sample in samplers(host):
            said = host.refusal(lambda sample=sample, entry=entry: sample(entry + blue, latents()))
            assert place in said, said


def check_a_small_share_at_the_end_keeps_a_frame_a_row_and_a_column(host):
    regions = host.module("nodes.host.models.regions")
    shape = (1, 4, 4, 16, 16)
    for part, begin in ((0.1, 0.9), (0.05, 0.95), (0.0, 0.99)):
        area = regions.resolved({"area": ("percentage", *(part,) * 3, *(begin,) * 3)}, shape)["area"]
        assert area[3] == 3, area
    red, blue = prompts(host)
    (last,) = host.run("ConditioningSetAreaPercentageVideo", red, 1.0, 1.0, 0.1, 0.0, 0.0, 0.9, 1.0)
    for sample in samplers(host):
        assert host.difference(sample(last + blue, latents()), sample(blue, latents())) > 1e-3


def check_masks_of_any_type_are_taken_and_those_without_numbers_are_refused(host):
    import torch

    red, blue = prompts(host)
    sample = samplers(host)[0]

    def masked(mask, how):
        return sample(host.run("ConditioningSetMask", red, mask, how, 1.0)[0] + blue, latents())

    for how in ("default", "mask bounds"):
        wanted = masked(left_half(4), how)
        for kind in (torch.bool, torch.uint8, torch.int64, torch.float64):
            assert host.difference(masked(left_half(4).to(kind), how), wanted) < 1e-5, (how, kind)
        for value in (float("nan"), float("inf"), -1.0):
            said = host.refusal(lambda value=value, how=how: masked(left_half(4) * value, how))
            assert "mask" in said, said


def check_noise_masks_of_any_type_are_taken_and_those_without_numbers_are_refused(host):
    import torch

    model, clip, _ = host.tiny()
    conds, samples = host.conds(clip, "a red circle", ""), torch.randn(1, 4, 4, 8, 8)

    def ours(mask):
        how = (1, 2, 4.0, "euler", "normal", 1.0)
        latent = {"samples": samples, "noise_mask": mask}
        return host.run("T2VVideoSampler", model, *conds, latent, *how)[0]["samples"]

    def core(mask):
        return host.ksample(model, None, samples, conds=conds, steps=2, noise_mask=mask)

    mask = left_half(4)[:, None]
    wanted = ours(mask)
    for same in (mask.bool(), mask.to(torch.uint8), (mask * 255).to(torch.uint8), mask.double()):
        assert host.difference(ours(same), wanted) < 1e-5, same.dtype
    for value in (float("nan"), float("inf"), -1.0):
        for sample in (ours, core):
            said = host.refusal(lambda sample=sample, value=value: sample(torch.full_like(mask, value)))
            assert "The latent has a mask" in said, said
