"""LoRA files of core's trainer, as core's loader, T2V LoRA Loader and the library apply them.

Run inside a ComfyUI by in_host.py.
"""

import inspect
import logging

import torch


def train(host, steps=1):
    """What core's trainer writes after a step on the random model: pairs, biases and norms, all made large."""
    model, clip, _ = host.tiny()
    cls = host.node("TrainLoraNode")
    call = cls.execute if hasattr(cls, "define_schema") else getattr(cls(), cls.FUNCTION)
    latents = {"samples": torch.randn(1, 4, 4, 8, 8)}
    given = {
        "model": model, "latents": latents, "positive": host.prompts(clip)[0], "batch_size": 1, "steps": steps,
        "grad_accumulation_steps": 1, "learning_rate": 5e-4, "rank": 2, "optimizer": "AdamW", "loss_function": "MSE",
        "seed": 0, "training_dtype": "fp32", "lora_dtype": "fp32", "quantized_backward": False, "algorithm": "LoRA",
        "gradient_checkpointing": False, "checkpoint_depth": 1, "offloading": False, "existing_lora": "[None]",
        "bucket_mode": False, "bypass_mode": False,
    }  # fmt: skip
    names = inspect.signature(call).parameters
    lists = hasattr(cls, "define_schema") or getattr(cls, "INPUT_IS_LIST", False)
    kept = {name: value for name, value in given.items() if name in names}
    if lists:  # lists of latents and of conditionings, and one of each other value
        kept = {name: [value] for name, value in kept.items()}
    result = call(**kept)
    outputs = result.args if hasattr(result, "args") else result
    found = next(out for out in outputs if isinstance(out, dict) and any(key.endswith(".diff_b") for key in out))
    torch.manual_seed(4)
    return {
        key: value.float() if key.endswith(".alpha") else torch.randn(value.shape) * 0.1 for key, value in found.items()
    }


def changed_weights(model, base):
    """The weights `base` of a UNet with the patches of a MODEL, as core adds them."""
    import comfy.lora

    changed = {key: value.clone() for key, value in base.items()}
    for key, patches in model.patches.items():
        name = key.removeprefix("diffusion_model.")
        changed[name] = comfy.lora.calculate_weight(patches, changed[name], key)
    return changed


def check_a_file_of_cores_trainer_is_applied_whole_and_as_by_core_and_the_library(host):
    import safetensors.torch

    model = host.tiny()[0]
    base = {key: value.clone() for key, value in model.model.diffusion_model.state_dict().items()}
    tensors = train(host)
    path = host.base / "models" / "loras" / "trained.safetensors"
    safetensors.torch.save_file(tensors, path)
    for strength in (0.8, -0.3):
        (core,) = host.run("LoraLoaderModelOnly", model, path.name, strength)
        ours = host.run("T2VLoraLoader", model, path.name, strength)[0]
        assert set(ours.patches) == set(core.patches)
        assert len(ours.patches) == sum(not key.endswith((".lora_down.weight", ".alpha")) for key in tensors)
        theirs, own = changed_weights(core, base), changed_weights(ours, base)
        apart = {key: float((theirs[key] - own[key]).abs().max()) for key in theirs}
        assert max(apart.values()) <= 1e-6, sorted(apart.items(), key=lambda item: -item[1])[:8]
        library = {key: value.clone() for key, value in base.items()}
        (report,) = host.module("t2v_models.checkpoints").apply_loras(library, [(path, strength)])
        assert report.applied == len(ours.patches)
        assert report.skipped == ()
        assert max(float((library[key] - own[key]).abs().max()) for key in own) <= 1e-6
        assert (
            min(float((base[key] - own[key]).abs().max()) for key in own if f"diffusion_model.{key}" in ours.patches)
            > 0
        )
    return len(ours.patches)


def check_what_the_loader_leaves_out_of_a_file_is_logged(host):
    import safetensors.torch

    class Heard(logging.Handler):
        def __init__(self):
            super().__init__()
            self.lines = []

        def emit(self, record):
            self.lines.append(record.getMessage())

    model = host.tiny()[0]
    key = "input_blocks.1.1.transformer_blocks.0.norm1"
    shape = model.model.diffusion_model.state_dict()[f"{key}.weight"].shape
    tensors = {
        f"diffusion_model.{key}.diff": torch.zeros(shape),
        f"diffusion_model.{key}.set_weight": torch.zeros(shape),
        "lora_te_text_model_final_layer_norm.diff": torch.zeros(32),
    }
    safetensors.torch.save_file(tensors, host.base / "models" / "loras" / "partly.safetensors")
    heard, log = Heard(), logging.getLogger(host.module("nodes.host.models.lora").__name__)
    log.addHandler(heard)
    try:
        patched = host.run("T2VLoraLoader", model, "partly.safetensors", 1.0)[0]
    finally:
        log.removeHandler(heard)
    assert list(patched.patches) == [f"diffusion_model.{key}.weight"]
    said = " ".join(heard.lines)
    assert "1 of its changes do not fit this model" in said
    assert f"{key}.set_weight" in said
    assert "1 weights of the text encoder: connect CLIP" in said


def check_a_lora_of_the_text_encoder_is_applied_to_clip(host):
    import safetensors.torch

    model, clip, _ = host.tiny()
    stored = clip.cond_stage_model.state_dict()
    key = next(key for key in stored if key.endswith("transformer.text_model.final_layer_norm.bias"))
    change = torch.randn(stored[key].shape)
    for root in ("text_encoders.clip_h.transformer.", "text_encoder."):
        tensors = {f"{root}text_model.final_layer_norm.diff_b": change}
        safetensors.torch.save_file(tensors, host.base / "models" / "loras" / "texts.safetensors")
        same, changed = host.run("T2VLoraLoader", model, "texts.safetensors", 1.0, 0.5, clip)
        assert same is model
        ((strength, (kind, (value,)), *_),) = changed.patcher.patches[key]
        assert (strength, kind) == (0.5, "diff")
        assert torch.equal(value, change)
