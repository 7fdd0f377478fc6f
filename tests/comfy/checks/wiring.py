"""What is wired wrong is said in one sentence. Run inside a ComfyUI by in_host.py."""

import torch


def image_model(host):
    """A model folder that says that it begins with an image."""
    import json
    import shutil

    folder = host.base / "models" / "diffusers" / "wants-an-image"
    shutil.copytree(host.pack / "t2v_models" / "builtin", folder, dirs_exist_ok=True)
    config = folder / "unet" / "config.json"
    settings = json.loads(config.read_text())
    settings["t2v"]["family"] = "dynamicrafter-512"
    config.write_text(json.dumps(settings))
    return folder.name


def no_weights(host):
    import safetensors.torch

    path = host.base / "models" / "text_encoders" / "none.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file({"weight": torch.zeros(2)}, path)
    return path.name


def sdxl(host):
    """A MODEL of SDXL, narrow and of random weights, and the name of the checkpoint with it."""
    import comfy.model_base
    import comfy.model_management as management
    import comfy.model_patcher
    import comfy.supported_models
    import safetensors.torch

    shape = {"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_head_channels": 16}
    shape |= {"num_res_blocks": [1, 1], "channel_mult": (1, 2), "transformer_depth": [0, 1], "context_dim": 2048}
    shape |= {"transformer_depth_middle": 1, "transformer_depth_output": [0, 0, 1, 1]}
    shape |= {"use_spatial_transformer": True, "use_linear_in_transformer": True, "use_temporal_attention": False}
    shape |= {"num_classes": "sequential", "adm_in_channels": 2816}
    config = comfy.supported_models.SDXL(shape)
    config.set_inference_dtype(torch.float32, None)
    model = comfy.model_base.SDXL(config)
    tensors = {
        f"model.diffusion_model.{name}": torch.zeros_like(t) for name, t in model.diffusion_model.state_dict().items()
    }
    path = host.base / "models" / "checkpoints" / "sdxl.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(tensors, path)
    device = management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=device), path.name


def check_wrong_wiring_is_said_in_one_sentence(host):
    model, clip, vae = host.tiny()
    positive, negative = host.conds(clip, "a red circle", "")
    empty = {"samples": torch.zeros(1, 4, 2, 8, 8)}
    settings = (1, 2, 4.0, "ddim", "diffusers", 1.0)
    other, other_file = sdxl(host)
    wide = [[torch.zeros(1, 77, 2048), {}]]
    cases = {
        "an SDXL model": lambda: host.run("T2VVideoSampler", other, positive, negative, empty, *settings),
        "a wide text": lambda: host.run("T2VVideoSampler", model, wide, wide, empty, *settings),
        "16 channels": lambda: host.run(
            "T2VVideoSampler", model, positive, negative, {"samples": torch.ones(1, 16, 2, 8, 8)}, *settings
        ),
        "16 channels in KSampler": lambda: host.run(
            "KSampler", model, 1, 2, 4.0, "euler", "normal", positive, negative,
            {"samples": torch.ones(1, 16, 2, 8, 8)}, 1.0,
        ),
        "10,000 frames in KSampler": lambda: host.run(
            "KSampler", model, 1, 2, 4.0, "euler", "normal", positive, negative,
            {"samples": torch.zeros(1, 4, 10000, 8, 8)}, 1.0,
        ),
        "16 channels in the VAE": lambda: host.run("VAEDecode", vae, {"samples": torch.ones(1, 16, 2, 8, 8)}),
        "an image of another size": lambda: host.run("T2VVAEEncodeFrames", torch.rand(2, 63, 65, 3), vae, 0, 0),
        "no text encoder": lambda: host.run("T2VTextEncode", None, "a"),
        "a story without a text encoder": lambda: host.run("T2VStory", None, "0-100%: a", 4, 8.0),
        "no VAE": lambda: host.run("T2VVAEDecodeFrames", empty, None),
        "an SDXL model in our other nodes": lambda: host.run("T2VWindows", other, 16, 8, "pyramid", False),
        "an SDXL checkpoint": lambda: host.run("T2VModelLoader", other_file, "default"),
        "a missing LoRA": lambda: host.run("T2VLoraLoader", model, "nowhere.safetensors", 1.0),
        "a missing model": lambda: host.run("T2VModelLoader", "nowhere.safetensors", "default"),
        "a model that wants an image": lambda: host.run("T2VModelLoader", image_model(host), "default"),
        "no text encoder in its file": lambda: host.run("T2VModelLoader", "tiny", "default", no_weights(host)),
    }  # fmt: skip
    said = {}
    for name, case in cases.items():
        try:
            case()
        except Exception as error:
            said[name] = f"{type(error).__name__}: {error}"
        else:
            said[name] = "nothing"
    for name, message in said.items():
        assert message.startswith("T2VError"), (name, message)
        assert "\n" not in message, (name, message)
    return said
