"""T2VCrossFrameAttention: an image model's frames look at anchor frames, with every sampler and beside other patches."""

import contextlib
from functools import partial
from unittest import mock

import cross_frame_node as node
from cross_frame_node import ANCHORS, FRAMES

CLOSE = 1e-5


@contextlib.contextmanager
def _written_out(model, anchor, frames=FRAMES):
    """The same self-attention, written out: each row by itself, with the keys of its anchors one after the other."""
    import torch
    from comfy.ldm.modules.attention import BasicTransformerBlock

    def forward_of(attention):
        def forward(x, *args, **kwargs):
            def heads(tokens):
                return tokens.unflatten(-1, (attention.heads, -1)).movedim(-2, 0)

            rows = []
            for row in range(len(x)):
                k = row % frames
                seen = torch.cat([x[row - k + anchor_frame] for anchor_frame in ANCHORS[anchor](k, frames)])
                q, k, v = (
                    heads(layer(tokens))
                    for layer, tokens in zip(
                        (attention.to_q, attention.to_k, attention.to_v), (x[row], seen, seen), strict=True
                    )
                )
                weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
                rows.append((weights @ v).movedim(0, -2).flatten(-2))
            return attention.to_out(torch.stack(rows))

        return forward

    with contextlib.ExitStack() as stack:
        for block in model.model.diffusion_model.modules():
            if isinstance(block, BasicTransformerBlock):
                stack.enter_context(mock.patch.object(block.attn1, "forward", forward_of(block.attn1)))
        yield


def _agrees(host, anchor="first", name="sd15", change=lambda model: model, **how):
    """The patch gives what the written-out attention gives, whatever else is on the model, before the patch or after it."""
    model = node.model(host, name)
    with _written_out(model, anchor):
        wanted = node.sample(host, change(model), **how)
    differences = {}
    for order, patched in (
        ("after", node.patched(host, change(model), anchor)),
        ("before", change(node.patched(host, model, anchor))),
    ):
        differences[order] = host.difference(node.sample(host, patched, **how), wanted)
    assert max(differences.values()) < CLOSE, (anchor, name, differences)
    plain = host.difference(node.sample(host, change(model), **how), wanted)
    assert plain > 1e-2, (anchor, name, plain)
    return wanted


def check_every_anchor_is_the_attention_that_its_name_says(host):
    for name in ("sd15", "sdxl"):
        for anchor in ANCHORS:
            _agrees(host, anchor, name)


def check_shuffled_groups_of_few_frames_are_all_frames_and_of_many_follow_seed_and_step(host):
    import torch

    model = node.model(host)
    few = [node.sample(host, node.patched(host, model, anchor)) for anchor in ("all", "shuffled groups")]
    assert host.difference(*few) < CLOSE
    many = [
        node.sample(host, node.patched(host, model, "shuffled groups", seed=seed), frames=12, steps=1)
        for seed in (1, 1, 2)
    ]
    assert torch.equal(many[0], many[1])
    assert host.difference(many[0], many[2]) > 1e-3
    step_of = host.module("nodes.host.zero_shot.cross_frame").step_of
    sigmas = torch.tensor([14.0, 3.0, 1.0, 0.0])
    for sigma, step in ((14.0, 0), (13.9999, 0), (5.0, 0), (3.0, 1), (2.0, 1), (1.0, 2), (15.0, 0)):
        assert step_of({"sample_sigmas": sigmas, "sigmas": torch.full((2,), sigma)}) == step, sigma
    assert step_of({}) == 0


def check_strength_0_is_the_plain_model_to_the_bit_and_the_rest_goes_steadily_to_the_anchors(host):
    import torch

    model = node.model(host)
    plain = node.sample(host, model)
    for anchor in ("first", "all"):
        runs = [
            node.sample(host, node.patched(host, model, anchor, strength)) for strength in (0.0, 1e-3, 0.3, 0.6, 1.0)
        ]
        assert torch.equal(runs[0], plain)
        ways = [host.difference(run, plain) for run in runs]
        assert ways == sorted(ways), (anchor, ways)
        assert ways[1] < 0.05 * ways[-1], (anchor, ways)


def check_the_first_frame_stays_and_frames_of_one_noise_agree(host):
    model = node.model(host)
    plain, patched = node.sample(host, model), node.sample(host, node.patched(host, model))
    assert host.difference(patched[:1], plain[:1]) < CLOSE
    (same,) = host.run("T2VSameNoise", node.patched(host, model), 1.0)
    alike = node.sample(host, same)
    assert host.difference(alike[1:], alike[:1].expand_as(alike[1:])) < CLOSE


def check_videos_in_the_batch_do_not_see_each_other(host):
    import torch

    model = node.model(host)
    for anchor in ("first", "first + previous", "all"):
        together = node.sample(host, node.patched(host, model, anchor, frames=3, videos=2), frames=6)
        for given in ({}, {"frames": 3}):
            parts = [
                node.sample(host, node.patched(host, model, anchor, **given), frames=3, batch_index=index)
                for index in ([0, 1, 2], [3, 4, 5])
            ]
            assert host.difference(torch.cat(parts), together) < CLOSE, anchor
    assert host.difference(node.sample(host, node.patched(host, model, "all", videos=2), frames=6), together) < CLOSE


def check_conditionings_evaluated_together_and_one_by_one_agree(host):
    import comfy.model_base

    def needed(self, shape, *args, **kwargs):
        return 1e15 if shape[0] > FRAMES else 1.0

    model = node.model(host)
    apply_model = comfy.model_base.BaseModel.apply_model
    for anchor in ("first", "first + previous", "all"):
        patched, joint = node.patched(host, model, anchor), _agrees(host, anchor)
        with (
            mock.patch.object(comfy.model_base.BaseModel, "memory_required", needed),
            mock.patch.object(
                comfy.model_base.BaseModel, "apply_model", autospec=True, side_effect=apply_model
            ) as calls,
        ):
            split = node.sample(host, patched)
        assert calls.call_count == 4, "two steps of two conditionings, one by one"
        assert host.difference(split, joint) < CLOSE


def check_guidance_scale_1_areas_masks_and_one_frame_work(host):
    import small_image_unets
    import torch

    _agrees(host, "first", cfg=1.0)
    positive, negative = small_image_unets.texts()
    third = small_image_unets.texts(3)[2]
    (left,) = host.run("ConditioningSetArea", third, 32, 64, 0, 0, 1.0)
    (masked,) = host.run("ConditioningSetMask", third, torch.ones(1, 64, 64).tril(), "default", 1.0)
    for part in (left, masked):
        (both,) = host.run("ConditioningCombine", positive, part)
        _agrees(host, "first", conds=(both, negative))
        _agrees(host, "all", conds=(both, negative))
    model = node.model(host)
    assert (
        host.difference(
            node.sample(host, node.patched(host, model, "all"), frames=1), node.sample(host, model, frames=1)
        )
        < CLOSE
    )


def check_it_composes_with_lora_freeu_attn2_patches_and_samplers(host):
    import torch

    model = node.model(host)
    lora = {}
    for name, weight in model.model.diffusion_model.state_dict().items():
        if name.endswith(("attn1.to_k.weight", "attn2.to_v.weight")):
            generator = torch.Generator().manual_seed(len(lora))
            key = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
            lora[f"{key}.lora_up.weight"] = torch.randn(len(weight), 2, generator=generator)
            lora[f"{key}.lora_down.weight"] = torch.randn(2, weight.shape[1], generator=generator)

    def with_lora(model):
        import comfy.lora
        import comfy.lora_convert

        model = model.clone()
        keys = {
            f"lora_unet_{name.removesuffix('.weight').replace('.', '_')}": f"diffusion_model.{name}"
            for name in model.model.diffusion_model.state_dict()
        }
        assert model.add_patches(comfy.lora.load_lora(comfy.lora_convert.convert_lora(dict(lora)), keys), 0.5)
        return model

    def with_image_prompt(model):  # as IP-Adapter adds tokens to the text
        def more_tokens(n, context, value, options):
            extra = n[:, :2, :1].expand(-1, -1, context.shape[-1])
            return n, torch.cat([context, extra], 1), torch.cat([value, extra], 1)

        model = model.clone()
        model.set_model_attn2_patch(more_tokens)
        return model

    def with_free_u(model):
        return host.run("FreeU_V2", model, 1.3, 1.4, 0.9, 0.2)[0]

    for change in (with_lora, with_image_prompt, with_free_u):
        for anchor in ("first", "all"):
            _agrees(host, anchor, change=change)
    for sampler in ("dpmpp_2m", "dpmpp_sde", "euler_ancestral"):
        _agrees(host, "first + previous", sampler=sampler)


def check_attention_that_guidance_replaces_keeps_each_frame_to_itself(host):
    """Perturbed attention returns a block's values as its result, so they must be the frame's own, whatever the anchors."""

    def with_pag(model):
        return host.run("PerturbedAttentionGuidance", model, 3.0)[0]

    for anchor in ("first", "first + previous", "all"):
        _agrees(host, anchor, change=with_pag)
    sag = node.model(host).clone()
    (sag,) = host.run("SelfAttentionGuidance", sag, 0.5, 2.0)
    for anchor in ("first", "all"):
        assert node.sample(host, node.patched(host, sag, anchor)).isfinite().all()


def check_merged_tokens_and_tiles_after_the_first_frames_keys_work(host):
    for core, settings in (("TomePatchModel", (0.3,)), ("HyperTile", (32, 2, 2, False))):
        model = node.patched(host, node.model(host))
        (model,) = host.run(core, model, *settings)
        assert node.sample(host, model).isfinite().all(), core


def check_the_last_patch_counts(host):
    import torch

    model = node.model(host)
    twice = node.patched(host, node.patched(host, model, "all", frames=7), "first")
    assert torch.equal(node.sample(host, twice), node.sample(host, node.patched(host, model, "first")))
    assert torch.equal(node.sample(host, node.patched(host, twice, strength=0.0)), node.sample(host, model))


def check_other_models_are_refused_with_a_sentence(host):
    import comfy.ldm.modules.attention as attention
    import small_image_unets
    import torch

    assert "for image models" in host.refusal(lambda: node.patched(host, host.tiny()[0]))
    video = small_image_unets.sd15()
    block = next(m for m in video.model.diffusion_model.modules() if isinstance(m, attention.SpatialTransformer))
    block.__class__ = attention.SpatialVideoTransformer  # as Stable Video Diffusion's are
    assert "for image models" in host.refusal(lambda: node.patched(host, video))
    other = small_image_unets.sd15()
    other.model.diffusion_model = torch.nn.Linear(1, 1)  # as of a transformer's MODEL
    assert "of another kind" in host.refusal(lambda: node.patched(host, other))


def check_what_cuts_frames_or_queries_is_refused_with_a_sentence(host):
    import image_models

    model = node.model(host)

    def windows(model):
        return image_models.core_windows(host, model, 3, 1, dim=0)

    assert "context windows" in host.refusal(lambda: node.patched(host, windows(model)))
    assert "ontext windows" in host.refusal(lambda: node.sample(host, windows(node.patched(host, model)), frames=6))
    (tiles,) = host.run("HyperTile", model, 32, 2, 2, False)
    assert "before HyperTile" in host.refusal(lambda: node.patched(host, tiles))
    (tiles,) = host.run("HyperTile", node.patched(host, model, "all"), 32, 2, 2, False)
    assert "HyperTile goes with one anchor" in host.refusal(lambda: node.sample(host, tiles))

    def cut(n, context, value, options):  # a patch of another name that does as HyperTile does
        return n.unflatten(1, (2, -1)).flatten(0, 1), context, value

    cutting = model.clone()
    cutting.set_model_attn1_patch(cut)
    assert "before HyperTile and its like" in host.refusal(lambda: node.sample(host, node.patched(host, cutting)))


def check_rows_that_are_no_such_videos_are_refused_with_their_numbers(host):
    import torch

    model = node.model(host)
    for frames, videos, rows in ((3, 1, 4), (3, 2, 4), (0, 3, 4), (4, 2, 4)):
        patched = node.patched(host, model, frames=frames, videos=videos)
        said = host.refusal(partial(node.sample, host, patched, frames=rows))
        assert f"{rows} rows" in said, said
        assert "set frames" in said, said
    clip = torch.zeros(1, 4, FRAMES, 8, 8)
    assert "T2VLatentLayout" in host.refusal(lambda: node.sample(host, node.patched(host, model), samples=clip))


def check_a_caller_that_tells_no_conditionings_needs_the_frames(host):
    import torch

    cross_frame = host.module("nodes.host.zero_shot.cross_frame")
    tokens = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
    _, keys, value = cross_frame.CrossFrame("first", 1.0, 4, 1, 0).attention(tokens, tokens, tokens, {})
    assert torch.equal(keys, tokens[:1].expand_as(tokens))
    assert value is keys
    for frames, wanted in ((0, "set frames"), (3, "4 rows")):
        patch = cross_frame.CrossFrame("first", 1.0, frames, 1, 0)
        assert wanted in host.refusal(lambda: patch.attention(tokens, tokens, tokens, {}))  # noqa: B023
