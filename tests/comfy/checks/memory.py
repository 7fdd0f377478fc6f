"""The host's memory manager owns every weight. Run inside a ComfyUI by in_host.py."""

import gc
import os
import weakref

import torch
from low_memory import partly, replaced, without_memory

ROUNDED = {"default": 1e-6, "fp16": 2e-3}
"""How far a patched model may be from one whose patched weights were rounded to their type, as a full load does it."""


def differ(a, b):
    """Largest difference in units of the values' size, at least 1."""
    return float((a - b).abs().max() / b.abs().max().clamp(min=1))


def ksample(host, model, clip, steps=2):
    positive, negative = host.conds(clip, "a red circle", "")
    latent = {"samples": torch.zeros(1, 4, 4, 8, 8)}
    args = (model, 3, steps, 5.0, "euler", "normal", positive, negative, latent, 1.0)
    return host.run("KSampler", *args)[0]["samples"]


def with_lora(model, strength=0.5):
    """A clone with a change of random low rank on a spatial, a temporal and a convolution weight."""
    torch.manual_seed(0)
    keys = (
        "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight",
        "diffusion_model.input_blocks.1.temporal.transformer_blocks.0.attn2.to_v.weight",
        "diffusion_model.middle_block.0.temporal_conv.conv2.3.weight",
    )
    weights = model.model.state_dict()
    model = model.clone()
    patches = {key: ("diff", (torch.randn(weights[key].shape) * 0.1,)) for key in keys}
    assert len(model.add_patches(patches, strength)) == 3
    return model


def check_every_weight_is_in_a_layer_that_the_host_can_cast(host):
    model, clip, _ = host.tiny()
    for name, whole in (("unet", model.model.diffusion_model), ("text", clip.cond_stage_model.clip_t2v.transformer)):
        for module_name, module in whole.named_modules():
            for parameter, _ in module.named_parameters(recurse=False):
                assert hasattr(module, "comfy_cast_weights"), f"{name} {module_name}.{parameter}"


def check_a_partial_load_with_a_lora_equals_a_full_one(host):
    import comfy.model_management as management

    for dtype in ("default", "fp16"):
        model, clip, _ = host.tiny("tiny", dtype)
        patched = with_lora(model)
        full = ksample(host, patched, clip)
        assert differ(full, ksample(host, model, clip)) > 1e-3
        with replaced(partly(management)):
            part = ksample(host, patched, clip)
            flagged = [m for m in patched.model.diffusion_model.modules() if getattr(m, "comfy_cast_weights", False)]
            assert len(flagged) > 50, len(flagged)
        assert differ(part, full) < ROUNDED[dtype], (dtype, differ(part, full))


def check_no_vram_equals_a_full_load(host):
    import comfy.model_management as management

    for dtype in ("default", "fp16"):
        model, clip, _ = host.tiny("tiny", dtype)
        for each, bound in ((model, 1e-6), (with_lora(model), ROUNDED[dtype])):
            full = ksample(host, each, clip)
            with replaced(without_memory(management)):
                out = ksample(host, each, clip)
                assert each.loaded_size() < each.model_size() // 10
            assert differ(out, full) < bound, (dtype, bound, differ(out, full))


def check_group_normalisation_for_gpus_equals_the_hosts_however_weights_are_loaded(host):
    import comfy.model_management as management

    key = "diffusion_model.input_blocks.1.0.in_layers.0.weight"
    seen = []
    on_gpu = host.module("t2v_models.unet.group_norm").on_gpu
    fast = {(host.module("nodes.host.compat"), "better_than_torchs"): lambda x, groups: seen.append(x.shape) or on_gpu}
    model, clip, _ = host.tiny()
    patched = model.clone()
    patched.add_patches({key: ("diff", (torch.ones_like(model.model.state_dict()[key]),))})
    assert differ(ksample(host, patched, clip), ksample(host, model, clip)) > 1e-3
    for each in (model, patched):
        for loaded in ({}, partly(management), without_memory(management)):
            with replaced(loaded):
                plain = ksample(host, each, clip)
                assert not seen
            with replaced({**loaded, **fast}):
                assert differ(ksample(host, each, clip), plain) < 1e-5
            assert len(seen) > 50, len(seen)
            seen.clear()


def check_half_precision_weights_compute_in_single_precision_here(host):
    model, clip, _ = host.tiny()
    half, _, _ = host.tiny("tiny", "fp16")
    assert half.model.get_dtype() == torch.float16
    assert half.model.manual_cast_dtype == torch.float32
    a, b = ksample(host, half, clip), ksample(host, model, clip)
    assert a.isfinite().all()
    assert 0 < differ(a, b) < 0.05, differ(a, b)
    patched = ksample(host, with_lora(half), clip)
    assert differ(patched, ksample(host, with_lora(model), clip)) < 0.05


def check_eight_bit_storage_runs(host):
    _, clip, _ = host.tiny()
    for name in ("fp8_e4m3fn", "fp8_e5m2"):
        model, _, _ = host.tiny("tiny", name)
        weight = model.model.diffusion_model.input_blocks[1]["1"].transformer_blocks[0].attn1.to_q.weight
        assert weight.element_size() == 1
        assert ksample(host, model, clip).isfinite().all()


def check_unloaded_models_are_gone(host):
    import comfy.model_management as management

    model, clip, vae = host.run("T2VModelLoader", "tiny", "default")[:3]
    ksample(host, model, clip)
    dead = [weakref.ref(model.model), weakref.ref(clip.cond_stage_model), weakref.ref(vae.first_stage_model)]
    del model, clip, vae
    management.unload_all_models()
    management.cleanup_models_gc()
    gc.collect()
    alive = [ref() for ref in dead if ref() is not None]
    assert not alive, [[type(holder).__name__ for holder in gc.get_referrers(each)] for each in alive]


def check_patchers_can_be_made_again_from_disk(host):
    for part in host.run("T2VModelLoader", "tiny", "default")[:3]:
        patcher = getattr(part, "patcher", part)
        factory, arguments = patcher.cached_patcher_init[:2]
        again = factory(*arguments)
        old, new = patcher.model.state_dict(), again.model.state_dict()
        assert old.keys() == new.keys()
        assert all(torch.equal(old[key], new[key]) for key in old)
        factory(*arguments, disable_dynamic=True)


def check_fifty_runs_leave_memory_as_it_was(host):
    import comfy.model_management as management
    import psutil

    process = psutil.Process(os.getpid())
    kept = []

    def once(i):
        model, clip, vae = host.run("T2VModelLoader", ("tiny", "tiny-v")[i % 2], "default")[:3]
        if i % 3:
            model = with_lora(model, 0.1 * (i % 3))
        kept.append(weakref.ref(model))
        latent = {"samples": ksample(host, model, clip, steps=1)}
        host.run("T2VVAEDecodeFrames", latent, vae)

    def settle():
        management.cleanup_models_gc()
        gc.collect()
        return process.memory_info().rss

    for i in range(10):
        once(i)
    before = settle()
    for i in range(50):
        once(i)
    after = settle()
    alive = sum(ref() is not None for ref in kept)
    assert alive <= 2, alive
    assert after < before * 1.02, (before >> 20, after >> 20)
    return before >> 20, after >> 20


def check_a_decode_in_chunks_equals_one_of_the_whole(host):
    module = host.module("nodes.host.models.chunked_vae")
    _, _, vae = host.tiny()
    samples = torch.randn(1, 4, 7, 8, 8)
    whole = vae.decode(samples)
    limit = module.MAX_CHUNK
    try:
        module.MAX_CHUNK = 2
        parts = vae.decode(samples)
        images = torch.rand(7, 64, 64, 3)
        encoded = vae.encode(images)
        module.MAX_CHUNK = limit
        assert differ(encoded, vae.encode(images)) < 1e-5
    finally:
        module.MAX_CHUNK = limit
    assert differ(parts, whole) < 1e-5


def check_out_of_memory_halves_the_chunk_then_tiles(host):
    _, _, vae = host.tiny()
    samples = torch.randn(1, 4, 6, 8, 8)
    whole = vae.decode(samples)
    model = vae.first_stage_model
    decode, sizes = model.decode, []

    def limited(limit, pixels):
        def attempt(latent, *args, **kwargs):
            sizes.append(len(latent))
            if len(latent) > limit and latent.shape[-1] * latent.shape[-2] >= pixels:
                raise torch.OutOfMemoryError("CUDA out of memory (a test)")
            return decode(latent, *args, **kwargs)

        return attempt

    try:
        model.decode = limited(2, 64)
        halved = vae.decode(samples)
        assert sizes == [6, 3, 1, 1, 1, 1, 1, 1], sizes
        assert differ(halved, whole) < 1e-5
        model.decode = limited(0, 40 * 40)
        big = torch.randn(1, 4, 2, 40, 40)
        tiled = vae.decode(big)
        assert tiled.shape == (2, 320, 320, 3)
    finally:
        del model.decode
    assert tiled.isfinite().all()


def check_a_cancel_is_seen_between_two_chunks(host):
    import comfy.model_management as management

    _, _, vae = host.tiny()
    model = vae.first_stage_model
    count = 3 * host.module("nodes.host.models.chunked_vae").MAX_CHUNK
    for name, work in (
        ("decode", lambda: vae.decode(torch.randn(1, 4, count, 8, 8))),
        ("encode", lambda: vae.encode(torch.rand(count, 64, 64, 3))),
    ):
        original, chunks = getattr(model, name), []

        def cancelled(part, *args, original=original, chunks=chunks, **kwargs):
            chunks.append(len(part))
            management.interrupt_current_processing(True)
            return original(part, *args, **kwargs)

        setattr(model, name, cancelled)
        try:
            host.demand_cancelled(work)
        finally:
            delattr(model, name)
        assert len(chunks) == 1, (name, chunks)


def check_a_model_that_gives_no_numbers_is_refused_with_the_remedy(host):
    model, clip, _ = host.tiny()
    positive, negative = host.conds(clip, "a red circle", "")
    broken = model.clone()
    broken.set_model_sampler_post_cfg_function(lambda args: args["denoised"] * float("nan"))
    (latent,) = host.run("T2VEmptyLatent", 64, 64, 2, 1)
    calls = {
        "ours": ("T2VVideoSampler", broken, positive, negative, latent, 1, 2, 4.0, "ddim", "diffusers", 1.0),
        "core's": ("KSampler", broken, 1, 2, 4.0, "euler", "normal", positive, negative, latent, 1.0),
    }
    for name, call in calls.items():
        said = host.refusal(lambda call=call: host.run(*call))
        assert all(word in said for word in ("(1, 4, 2, 8, 8)", "float32", "LoRAs", "cfg")), (name, said)
        assert "weight_dtype" not in said, "the advice is the type that it was computed in"


def check_models_of_pictures_in_parts_equal_whole_ones(host):
    """Image encoder, projector and UNet, with a LoRA, where weights come to the device as they are used."""
    import comfy.model_management as management
    import image_models

    def run(strength=1.0):
        model, *others = image_models.animate(host, "dynamicrafter-256")
        return image_models.sample(host, (with_lora(model, strength), *others))

    full = run()
    assert differ(full, run(0.0)) > 1e-3
    for loaded in (partly(management), without_memory(management)):
        with replaced(loaded):
            assert differ(run(), full) < 1e-5
