"""Weights from elsewhere: LoRAs, text encoders and VAEs of core, models merged, saved and loaded again.

Run inside a ComfyUI by in_host.py.
"""

import json

import torch


def lora(names, rank=2, scale=0.5):
    torch.manual_seed(0)
    out = {}
    for name, weight in names.items():
        inner = weight.shape[1:].numel()
        out[f"{name}.lora_up.weight"] = torch.randn(weight.shape[0], rank) * scale
        out[f"{name}.lora_down.weight"] = torch.randn(rank, inner).reshape(rank, *weight.shape[1:]) * scale
        if weight.ndim == 4:
            out[f"{name}.lora_up.weight"] = out[f"{name}.lora_up.weight"].reshape(weight.shape[0], rank, 1, 1)
        out[f"{name}.alpha"] = torch.tensor(float(rank))
    return out


def check_a_spatial_lora_of_load_lora_is_added_to_the_weights(host):
    import safetensors.torch

    model, clip, _ = host.tiny()
    unet = model.model.diffusion_model
    key = "input_blocks.1.1.transformer_blocks.0.attn1.to_q"
    weight = unet.get_submodule(key).weight
    for title, name in (
        ("kohya", "lora_unet_" + key.replace(".", "_")),
        ("diffusers", "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"),
    ):
        state_dict = lora({name: weight})
        safetensors.torch.save_file(state_dict, host.base / "models" / "loras" / f"{title}.safetensors")
        patched, patched_clip = host.run("LoraLoader", model, clip, f"{title}.safetensors", 0.8, 0.8)
        assert list(patched.patches) == [f"diffusion_model.{key}.weight"], title
        before = weight.clone()
        out = host.ksample(patched, patched_clip)
        assert (out - host.ksample(model, clip)).abs().max() > 1e-4, title
        assert torch.equal(weight, before), title
        ours = host.run("T2VLoraLoader", model, f"{title}.safetensors", 0.8)[0]
        assert torch.equal(host.ksample(ours, clip), out), title


def check_a_lora_of_temporal_layers_is_added_to_the_weights_by_our_loader(host):
    import safetensors.torch

    model, clip, _ = host.tiny()
    unet = model.model.diffusion_model
    names = host.module("t2v_models.checkpoints").LAYOUTS["diffusers"].names(unet.config)
    torch.manual_seed(0)
    tensors, patches = {}, {}
    for key in (
        "input_blocks.1.temporal.transformer_blocks.0.attn1.to_q.weight",
        "middle_block.0.temporal_conv.conv2.3.weight",
        "init_attn.proj_in.weight",
    ):
        weight = unet.state_dict()[key]
        up, down = torch.randn(weight.shape[0], 2), torch.randn(2, *weight.shape[1:])
        base = f"base_model.model.unet.{names[key].removesuffix('.weight')}"
        ones = (1,) * (weight.ndim - 2)
        tensors[f"{base}.lora_A.default.weight"] = down
        tensors[f"{base}.lora_B.default.weight"] = up.view(*up.shape, *ones).clone()
        patches[f"diffusion_model.{key}"] = ("diff", ((up @ down.flatten(1)).view_as(weight),))
    safetensors.torch.save_file(tensors, host.base / "models" / "loras" / "temporal.safetensors")
    wanted = model.clone()
    assert len(wanted.add_patches(patches, 0.3)) == 3
    (ours,) = host.run("T2VLoraLoader", model, "temporal.safetensors", 0.3)[:1]
    out = host.ksample(ours, clip)
    assert (out - host.ksample(model, clip)).abs().max() > 1e-3
    assert (out - host.ksample(wanted, clip)).abs().max() / out.abs().max() < 1e-5


def check_a_lora_of_strength_0_changes_nothing_and_one_of_another_size_is_refused(host):
    import safetensors.torch

    model = host.tiny()[0]
    key = "input_blocks.1.1.transformer_blocks.0.attn1.to_q"
    weight = model.model.diffusion_model.get_submodule(key).weight
    folder, name = host.base / "models" / "loras", "lora_unet_" + key.replace(".", "_")
    safetensors.torch.save_file(lora({name: weight}), folder / "fits.safetensors")
    safetensors.torch.save_file(
        lora({name: torch.zeros(weight.shape[0] + 8, weight.shape[1])}), folder / "wide.safetensors"
    )
    assert host.run("T2VLoraLoader", model, "fits.safetensors", 0.0)[0] is model
    assert "fits this model" in host.refusal(lambda: host.run("T2VLoraLoader", model, "wide.safetensors", 1.0))


def stable_diffusion_vae():
    """Weights of Stable Diffusion's VAE, random ones."""
    from comfy.ldm.models.autoencoder import AutoencoderKL

    torch.manual_seed(0)
    levels = {"ch": 128, "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0}
    config = {"double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, **levels}
    state_dict = AutoencoderKL(ddconfig=config, embed_dim=4).state_dict()  # not set to anything by the host
    for weight in state_dict.values():
        weight.copy_(
            torch.randn(weight.shape) / weight[0].numel() ** 0.5 if weight.ndim > 1 else torch.ones(weight.shape)
        )
    return state_dict


def check_a_stable_diffusion_vae_of_core_gives_every_frame_by_our_nodes(host):
    import comfy.sd

    vae = comfy.sd.VAE(sd=stable_diffusion_vae())
    latents = torch.randn(1, 4, 3, 8, 8)
    (images,) = host.run("T2VVAEDecodeFrames", {"samples": latents}, vae)
    apart = torch.cat([vae.decode(latents[:, :, frame]) for frame in range(3)])
    assert images.shape == (3, 64, 64, 3)
    assert (images - apart).abs().max() < 1e-4, (vae.vae_dtype, float((images - apart).abs().max()))
    (latent,) = host.run("T2VVAEEncodeFrames", images, vae, 0, 0)
    assert latent["samples"].shape == (1, 4, 3, 8, 8)


def check_a_vae_file_chosen_apart_is_taken_for_the_models_own(host):
    import comfy.sd
    import safetensors.torch

    folder = host.base / "models" / "vae"
    folder.mkdir(parents=True, exist_ok=True)
    weights = stable_diffusion_vae()
    safetensors.torch.save_file(weights, folder / "apart.safetensors")
    vae = host.run("T2VModelLoader", "tiny", "default", vae="apart.safetensors")[2]
    latents = torch.randn(1, 4, 2, 8, 8)
    (images,) = host.run("VAEDecode", vae, {"samples": latents})
    cores = comfy.sd.VAE(sd=weights)
    assert images.shape == (2, 64, 64, 3)
    assert (images - torch.cat([cores.decode(latents[:, :, frame]) for frame in range(2)])).abs().max() < 1e-4


def check_a_text_encoder_file_chosen_apart_is_read_as_core_reads_it(host):
    import safetensors.torch

    folder = host.base / "models" / "text_encoders"
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    safetensors.torch.save_file(clip_vit_l(), folder / "apart.safetensors")
    clip = host.run("T2VModelLoader", "tiny", "default", text_encoder="apart.safetensors")[1]
    (cores,) = host.run("CLIPLoader", "apart.safetensors", "stable_diffusion")
    ours, theirs = (host.conds(each, "a red circle moves right")[0][0][0] for each in (clip, cores))
    assert ours.shape == (1, 77, 768)
    assert torch.equal(ours, theirs)


def clip_vit_l():
    """Random weights under the names of Stable Diffusion 1's text encoder."""
    width, inner = 768, 3072
    names = {"layer_norm1": (width,), "layer_norm2": (width,), "mlp.fc1": (inner, width), "mlp.fc2": (width, inner)}
    names |= {f"self_attn.{x}_proj": (width, width) for x in ("q", "k", "v", "out")}
    shapes = {"embeddings.token_embedding.weight": (49408, width), "embeddings.position_embedding.weight": (77, width)}
    for layer in range(12):
        for name, shape in names.items():
            shapes[f"encoder.layers.{layer}.{name}.weight"] = shape
            shapes[f"encoder.layers.{layer}.{name}.bias"] = shape[:1]
    shapes |= {"final_layer_norm.weight": (width,), "final_layer_norm.bias": (width,)}
    return {f"text_model.{name}": 0.02 * torch.randn(shape, dtype=torch.float16) for name, shape in shapes.items()}


def check_the_built_in_model_saved_keeps_what_it_knows(host):
    model = host.run("T2VModelLoader", "built-in", "default")[0]
    host.run("ModelSave", model, "diffusion_models/own")
    saved = sorted((host.base / "output" / "diffusion_models").glob("own*.safetensors"))[-1]
    saved.rename(host.base / "models" / "text2video" / "own.safetensors")
    again = host.run("T2VModelLoader", "own.safetensors", "default")[0]
    assert again.model.family == model.model.family
    assert again.model.family.frame_timesteps
    assert again.model.family.speed_words


def check_merge_and_save_and_load_again(host):
    model, clip, _ = host.tiny()
    other, _, _ = host.tiny("tiny-v")
    (same,) = host.run("ModelMergeSimple", model, other, 1.0)
    plain = host.ksample(model, clip)
    assert (host.ksample(same, clip) - plain).abs().max() < 1e-5
    (merged,) = host.run("ModelMergeSimple", model, other, 0.5)
    out = host.ksample(merged, clip)
    assert (out - plain).abs().max() > 1e-3
    host.run("ModelSave", merged, "diffusion_models/merged")
    saved = sorted((host.base / "output" / "diffusion_models").glob("merged*.safetensors"))[-1]
    folder = host.base / "models" / "text2video"
    folder.mkdir(exist_ok=True)
    saved.rename(folder / "merged.safetensors")
    again, no_clip, no_vae = host.run("T2VModelLoader", "merged.safetensors", "default")[:3]
    assert no_clip is None
    assert no_vae is None
    assert (host.ksample(again, clip) - out).abs().max() / out.abs().max() < 1e-4


def check_a_checkpoint_saved_by_core_loads_again(host):
    """Of a text encoder and VAE that only files beside them tell, the host saves too little: they are chosen apart."""
    model, clip, vae = host.tiny()
    host.run("CheckpointSave", model, clip, vae, "whole/tiny")
    saved = sorted((host.base / "output" / "whole").glob("tiny*.safetensors"))[-1]
    folder = host.base / "models" / "text2video"
    folder.mkdir(exist_ok=True)
    saved.rename(folder / "whole.safetensors")
    again, no_clip, no_vae = host.run("T2VModelLoader", "whole.safetensors", "default")[:3]
    assert (no_clip, no_vae) == (None, None)
    assert host.difference(host.ksample(model, clip), host.ksample(again, clip)) < 1e-4


def check_a_folder_of_modelscopes_files_is_listed_without_its_configuration(host):
    """As people download them, and as `convert --layout modelscope` writes them."""
    names = host.module("nodes.host.models.folders").model_names
    folder = host.base / "models" / "text2video" / "potat1"
    folder.mkdir(parents=True)
    (folder / "text2video_pytorch_model.bin").touch()
    assert "potat1" not in names()
    (folder / "text2video_pytorch_model.pth").touch()
    assert "potat1" in names()
    (folder / "text2video_pytorch_model.pth").unlink()


def check_links_into_the_loader_are_no_files_that_are_gone(host):
    fingerprint = host.module("nodes.host.models.folders").fingerprint
    assert "gone" not in fingerprint(None, None, None)
    folder = host.base / "models" / "text2video" / "alone"
    folder.mkdir(parents=True)
    (folder / "alone.safetensors").touch()
    states = [fingerprint("alone/alone.safetensors")]
    (folder / "config.json").write_text("{}")
    states.append(fingerprint("alone/alone.safetensors"))
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.json").write_text("{}")
    states.append(fingerprint("alone/alone.safetensors"))
    assert len(set(states)) == 3
    __import__("shutil").rmtree(folder)
    cls = host.node("T2VLoadVideo")
    assert cls.validate_inputs(video=None) is True
    assert cls.fingerprint_inputs(video=None) == cls.fingerprint_inputs(video=None)


def check_turbos_lora_takes_videocrafters_scale_away(host):
    module, sampling = host.module("nodes.host.models.lora"), host.module("nodes.host.models.model_sampling")
    lora_module = host.module("t2v_models.checkpoints.lora_pairs")
    model, clip, _ = host.run("T2VModelLoader", "tiny", "default")[:3]
    inner = model.model
    schedule = host.module("t2v_models.sampling.schedule").NoiseSchedule.from_config(inner.scheduler, scale_base=0.7)
    inner.model_sampling = sampling.make_model_sampling(schedule, inner.model_config)
    key = "init_attn.proj_in.weight"
    shape = inner.diffusion_model.state_dict()[key].shape
    pairs = {
        key: lora_module.LoraPair(torch.randn(shape[0], 2), torch.randn(2, *shape[1:])),
        "time_cond_proj.weight": lora_module.LoraPair(torch.randn(32, 2), torch.randn(2, 256)),
    }
    before, path, family_for = module.read_lora, module.folders.file_path, module.family_for
    families = host.module("t2v_models.families")
    inner.family = families.FAMILIES["videocrafter2"]
    module.folders.file_path = lambda *args: host.base
    try:
        for names, scaled in (((key,), True), (tuple(pairs), False)):
            module.family_for = lambda config: families.FAMILIES["t2v-turbo-vc2"]
            made = lora_module.Lora("turbo", "list", {name: pairs[name] for name in names}, {})
            module.read_lora = lambda *args, made=made: made
            patched, _ = module.apply(model, clip, "turbo", 1.0, 1.0)
            assert sampling.is_scaled(patched.get_model_object("model_sampling")) is scaled
            assert host.ksample(patched, clip).isfinite().all()
            sigmas = host.module("nodes.host.sampling.run").schedule(patched, "lcm", "diffusers", 4, 1.0)
            at = [int(patched.get_model_object("model_sampling").timestep(sigma.view(1))) for sigma in sigmas[:-1]]
            assert at == ([999, 759, 499, 259] if scaled else [999, 749, 499, 249])
            saved = json.loads(bytes(inner.state_dict_for_saving({})["t2v_config"].tolist()))
            assert (saved["family"]["scale_base"] is None) is not scaled
        pipeline = host.module("nodes.host.film").HostPipeline
        film, loaded = pipeline(patched, clip), pipeline(model, clip).identity()
        assert not film.schedule.is_scaled
        assert film.schedule.config["even_steps"] is True
        host.ksample(model, clip)  # takes the patches back
        assert pipeline(patched, clip).identity() == film.identity()
        assert pipeline(model, clip).identity() == loaded != film.identity()
    finally:
        module.read_lora, module.folders.file_path, module.family_for = before, path, family_for
    assert sampling.is_scaled(model.get_model_object("model_sampling"))


def check_the_type_that_was_chosen_holds_where_weights_lie_in_another(host):
    unet = host.module("nodes.host.models.unet").HostUNet3D
    config = host.tiny()[0].model.diffusion_model.config
    made = unet(unet3d_config=config, dtype=torch.bfloat16, device="meta", operations=torch.nn)
    made.load_state_dict(dict(host.tiny()[0].model.diffusion_model.state_dict()), assign=True)
    assert made.out[2].weight.dtype == torch.float32
    assert made.dtype == torch.bfloat16


def check_models_load_where_the_host_makes_linear_layers_without_weights(host):
    """As 0.24.0 does on Windows with dynamic VRAM; what they are given they take as it is."""
    import importlib
    from unittest import mock

    import comfy.model_management as management

    try:
        memory = importlib.import_module("comfy.memory_management")
    except ImportError:  # 0.3.64 makes none
        return
    with mock.patch.object(management, "WINDOWS", True), mock.patch.object(memory, "aimdo_enabled", True):
        model, clip, _ = host.run("T2VModelLoader", "tiny", "bf16")[:3]
        assert {value.dtype for value in model.model.diffusion_model.state_dict().values()} == {torch.bfloat16}
        assert host.ksample(model, clip).isfinite().all()


def check_an_error_of_latents_that_are_no_numbers_advises_no_type_that_is_in_use(host):
    checks = host.module("nodes.host.models.checks")
    latent = torch.full((1, 4, 2, 8, 8), float("nan"))
    for dtype, advised, never in (("fp32", "LoRAs", "fp32"), ("bf16", "fp32", "bf16 or")):
        inner = host.run("T2VModelLoader", "tiny", dtype)[0].model
        if (
            str(inner.manual_cast_dtype or inner.get_dtype())
            == {"fp32": "torch.float32", "bf16": "torch.bfloat16"}[dtype]
        ):
            said = host.refusal(lambda inner=inner: checks.check_finite(inner, latent))
            assert advised in said
            assert never not in said.partition(":")[2]


def check_a_vae_from_a_file_of_its_own_is_read_without_wrappers_and_one_of_another_shape_is_named(host):
    import safetensors.torch

    load = host.module("nodes.host.models.load")
    checkpoint = host.module("t2v_models.checkpoints").open_checkpoint(
        host.module("t2v_models.builtin_model").BUILT_IN_FOLDER
    )
    folder = host.base / "models" / "vae"
    folder.mkdir(exist_ok=True)
    ldm = host.module("t2v_models.checkpoints.vae").to_ldm(checkpoint.lazy_vae())
    plain = {f"first_stage_model.{name}": tensor.load().contiguous() for name, tensor in ldm.items()}
    wrapped = {
        f"state_dict.{name}".replace("first_stage_model.", "first_stage_model._orig_mod."): t
        for name, t in plain.items()
    }
    for name, tensors in (("plain", plain), ("wrapped", wrapped)):
        safetensors.torch.save_file(tensors, folder / f"{name}.safetensors")
        read = load._other(folder / f"{name}.safetensors")
        assert read.keys() == plain.keys()
        assert all(torch.equal(read[key], plain[key]) for key in plain)
    assert "plain.safetensors" in host.refusal(lambda: load.load_other_autoencoder(folder / "plain.safetensors"))
