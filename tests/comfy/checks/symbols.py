"""What the pack takes from its host: only names and attributes that are known to last, and all of them there.

They were the same in every version from 0.3.64 to 0.38; one more has to be looked up in all of them first.
"""

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import torch

STABLE = {
    "comfy.cli_args": "args",
    "comfy.clip_vision": "ClipVisionModel",
    "comfy.conds": "CONDRegular CONDConstant",
    "comfy.context_windows": "IndexListContextHandler ContextSchedule ContextFuseMethod "
    "create_prepare_sampling_wrapper",
    "comfy.controlnet": "ControlBase",
    "comfy.diffusers_convert": "convert_vae_state_dict",
    "comfy.latent_formats": "SD15",
    "comfy.k_diffusion.sampling": "BrownianTreeNoiseSampler default_noise_sampler",
    "comfy.ldm.modules.attention": "SpatialVideoTransformer optimized_attention",
    "comfy.ldm.modules.diffusionmodules.openaimodel": "UNetModel",
    "comfy.lora": "load_lora",
    "comfy.model_base": "BaseModel ModelType",
    "comfy.model_management": "InterruptProcessingException OOM_EXCEPTION get_free_memory get_torch_device "
    "get_total_memory intermediate_device load_models_gpu soft_empty_cache text_encoder_device "
    "text_encoder_offload_device throw_exception_if_processing_interrupted unet_dtype unet_manual_cast unet_offload_device",
    "comfy.model_patcher": "ModelPatcher",
    "comfy.model_sampling": "CONST ModelSamplingDiscrete EPS V_PREDICTION reshape_sigma",
    "comfy.ops": "disable_weight_init manual_cast",
    "comfy.patcher_extension": "WrappersMP WrapperExecutor get_all_wrappers",
    "comfy.sample": "prepare_noise sample_custom",
    "comfy.samplers": "KSampler KSAMPLER calc_cond_batch sample sampler_object",
    "comfy.sd": "CLIP VAE CLIPType load_text_encoder_state_dicts",
    "comfy.sd1_clip": "SDTokenizer SDClipModel SD1Tokenizer SD1ClipModel",
    "comfy.supported_models": "SD15",
    "comfy.supported_models_base": "BASE",
    "server": "PromptServer",
    "comfy.utils": "ProgressBar load_torch_file weight_dtype state_dict_prefix_replace common_upscale "
    "calculate_parameters repeat_to_batch_size unet_to_diffusers",
    "comfy_api.latest": "io ComfyExtension InputImpl Types",
    "folder_paths": "add_model_folder_path folder_names_and_paths get_annotated_filepath get_filename_list "
    "get_folder_paths get_full_path get_input_directory get_output_directory get_save_image_path get_temp_directory "
    "models_dir supported_pt_extensions",
    "latent_preview": "get_previewer preview_to_image",
}
"""Names by module."""

ASKED_FOR = {"comfy.model_management": "is_oom", "comfy.ops": "cast_bias_weight uncast_bias_weight"}
"""Names that newer versions have, taken after a look whether they are there."""


def host_module(name: str) -> bool:
    return name.split(".")[0] in ("comfy", "comfy_api", "folder_paths", "latent_preview", "server", "execution")


def trees(pack: Path) -> Iterator[tuple[Path, ast.Module, dict[str, str]]]:
    """Every file of the nodes, parsed, and the modules that it imports by the names that it gives them."""
    for path in sorted(pack.glob("nodes/**/*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        aliases = [alias for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        yield path, tree, {alias.asname or alias.name: alias.name for alias in aliases}


def used(pack: Path) -> Iterator[tuple[str, str, str]]:
    """(module, name, file) of everything that the pack's nodes take from the host."""
    for path, tree, imported in trees(pack):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and not node.level and host_module(node.module):
                yield from ((node.module, alias.name, path.name) for alias in node.names)
            elif isinstance(node, ast.Attribute):
                owner = imported.get(ast.unparse(node.value))
                if owner and host_module(owner) and f"{owner}.{node.attr}" not in imported.values():
                    yield owner, node.attr, path.name


def check_every_name_taken_from_the_host_is_one_that_lasts_and_is_there(host):
    found = list(used(host.pack))
    assert len({module for module, _, _ in found}) >= 15, "the search finds nothing"
    for module, name, file in found:
        if name in ASKED_FOR.get(module, "").split():
            continue
        assert name in STABLE.get(module, "").split(), f"{file}: {module}.{name} is not among the names that last"
        assert hasattr(importlib.import_module(module), name), f"{file}: {module}.{name}"


MEANT_TO_BE_SET = {"folder_paths.folder_names_and_paths['text2video']"}
"""How the host lets a pack have a model folder."""


def replacements(tree: ast.AST, imported: dict[str, str]) -> Iterator[str]:
    """What is assigned to inside a module of the host."""
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign | ast.Delete) else [getattr(node, "target", None)]
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("setattr", "delattr"):
            targets = node.args[:1]
        for target in targets:
            inner = target
            while isinstance(inner, ast.Attribute | ast.Subscript):
                inner = inner.value
                owner = imported.get(ast.unparse(inner))
                if owner and host_module(owner):
                    yield ast.unparse(target)
                    break


def check_nothing_of_the_host_is_replaced(host):
    found = {name for _, tree, imported in trees(host.pack) for name in replacements(tree, imported)}
    assert found == MEANT_TO_BE_SET, found
    for code in ("import comfy.sd as s; s.VAE = 1", "import comfy.sd\ncomfy.sd.a.b['c'] += 1"):
        tree = ast.parse(code)
        assert list(replacements(tree, {"s": "comfy.sd", "comfy.sd": "comfy.sd"})), "the search finds nothing"


ATTRIBUTES = {
    "comfy.clip_model.CLIPVisionModelProjection": "vision_model",
    "comfy.clip_vision.ClipVisionModel": "load_device load_sd model patcher",
    "comfy.conds.CONDRegular": "_copy_with cond process_cond",
    "comfy.context_windows.IndexListContextHandler": "context_length dim should_use_context set_step execute "
    "get_resized_cond _step",
    "comfy.context_windows.IndexListContextWindow": "index_list dim",
    "comfy.controlnet.ControlNet": "cond_hint cond_hint_original previous_controlnet get_control",
    "comfy.latent_formats.SD15": "latent_channels latent_rgb_factors scale_factor taesd_decoder_name",
    "comfy.model_base.BaseModel": "diffusion_model extra_conds get_dtype latent_format load_model_weights "
    "manual_cast_dtype memory_required model_config model_sampling process_latent_in process_latent_out "
    "state_dict_for_saving",
    "comfy.model_patcher.ModelPatcher": "add_object_patch add_patches add_wrapper_with_key backup clone forced_hooks "
    "get_model_object injections load_device model model_options object_patches patches remove_wrappers_with_key size "
    "set_model_attn1_patch set_model_sampler_post_cfg_function weight_wrapper_patches wrappers",
    "comfy.model_sampling.EPS": "calculate_denoised calculate_input noise_scaling",
    "comfy.model_sampling.ModelSamplingDiscrete": "linear_end linear_start log_sigmas num_timesteps set_sigmas sigma "
    "sigma_max sigmas zsnr",
    "comfy.ops.disable_weight_init": "Conv2d Embedding GroupNorm LayerNorm Linear",
    "comfy.patcher_extension.WrapperExecutor": "class_obj execute",
    "comfy.samplers.CFGGuider": "conds model_options model_patcher",
    "comfy.samplers.KSamplerX0Inpaint": "inner_model",
    "comfy.sd.CLIP": "add_hooks_to_dict clone cond_stage_model encode_from_tokens encode_from_tokens_scheduled layer_idx "
    "load_sd patcher tokenize tokenizer",
    "comfy.sd.VAE": "decode decode_tiled decode_tiled_ device downscale_ratio encode encode_tiled encode_tiled_ "
    "first_stage_model latent_channels latent_dim memory_used_decode memory_used_encode output_channels output_device "
    "patcher process_input process_output spacial_compression_decode spacial_compression_encode "
    "throw_exception_if_invalid upscale_ratio vae_dtype vae_encode_crop_pixels",
    "comfy.sd1_clip.SDClipModel": "operations transformer",
    "comfy.sd1_clip.SDTokenizer": "end_token pad_token tokenizer",
    "comfy.supported_models_base.BASE": "get_model inpaint_model latent_format memory_usage_factor model_type "
    "set_inference_dtype supported_inference_dtypes unet_extra_config",
    "comfy.utils.ProgressBar": "current update update_absolute",
}
"""Attributes of the host's objects by class: what is read, called or set on them, and methods that ours override."""

ATTRIBUTES_ASKED_FOR = {
    "comfy.context_windows.IndexListContextHandler": "causal_window_fix",
    "comfy.context_windows.IndexListContextWindow": "causal_anchor_index",
    "comfy.controlnet.ControlNet": "cond_hints control_inputs get_instance_for_device",
    "comfy.latent_formats.SD15": "latent_rgb_factors_bias",
    "comfy.model_base.BaseModel": "resize_cond_for_context_window",
    "comfy.model_patcher.ModelPatcher": "cached_patcher_init get_free_memory is_dynamic",
    "comfy.sd.VAE": "size",
}
"""Attributes that only newer versions have: taken after a look whether they are there, or set without effect."""

OBJECTS = {
    "bar": "comfy.utils.ProgressBar",
    "clip": "comfy.sd.CLIP torch.Tensor",
    "clip_vision": "comfy.clip_vision.ClipVisionModel",
    "clone": "comfy.model_patcher.ModelPatcher",
    "cond_value": "comfy.conds.CONDRegular",
    "executor": "comfy.patcher_extension.WrapperExecutor",
    "class_obj": "comfy.samplers.CFGGuider",
    "guider": "comfy.samplers.CFGGuider",
    "handler": "comfy.context_windows.IndexListContextHandler",
    "inner_model": "comfy.samplers.CFGGuider",
    "inner": "comfy.model_base.BaseModel comfy.controlnet.ControlNet",
    "latent_format": "comfy.latent_formats.SD15",
    "model": "comfy.model_patcher.ModelPatcher comfy.model_base.BaseModel comfy.samplers.KSamplerX0Inpaint "
    "comfy.clip_model.CLIPVisionModelProjection",
    "model_config": "comfy.supported_models_base.BASE",
    "model_patcher": "comfy.model_patcher.ModelPatcher",
    "model_sampling": "comfy.model_sampling.ModelSamplingDiscrete",
    "net": "comfy.controlnet.ControlNet",
    "operations": "comfy.ops.disable_weight_init",
    "patcher": "comfy.model_patcher.ModelPatcher",
    "progress": "comfy.utils.ProgressBar",
    "vae": "comfy.sd.VAE",
    "window": "comfy.context_windows.IndexListContextWindow",
}
"""What our sources call the host's objects, in variables and attributes, and the classes of these."""


def has(cls: type, name: str) -> bool:
    """Whether a class or one of its bases defines an attribute, or a method of them sets it on `self`."""
    if hasattr(cls, name) or name in getattr(cls, "__annotations__", {}):
        return True
    trees = [ast.parse(inspect.getsource(module)) for module in {inspect.getmodule(each) for each in cls.__mro__[:-1]}]
    names = {each.__name__ for each in cls.__mro__}
    parts = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name in names]
    return any(name in set_on_self(part) for part in parts)


def set_on_self(cls: ast.ClassDef) -> set[str]:
    """The attributes that the methods of a class set on `self`, buffers among them, and those that it defines."""
    buffers = [
        node for node in ast.walk(cls) if isinstance(node, ast.Call) and "register_buffer" in ast.unparse(node.func)
    ]
    stored = [node for node in ast.walk(cls) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)]
    names = {node.attr for node in stored if ast.unparse(node.value) == "self"}
    names |= {node.args[0].value for node in buffers if isinstance(node.args[0], ast.Constant)}
    names |= {node.name for node in cls.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assigned = [target for node in cls.body for target in getattr(node, "targets", [getattr(node, "target", None)])]
    return names | {target.id for target in assigned if isinstance(target, ast.Name)}


def attributes_used(tree: ast.Module, imported: dict[str, str]) -> Iterator[tuple[str, str]]:
    """(what an object is called, attribute) of every access, by a dot or by getattr and hasattr, but to modules."""
    for node in ast.walk(tree):
        owner, name = None, None
        if isinstance(node, ast.Attribute):
            owner, name = node.value, node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
            owner, name = node.args[0], getattr(node.args[1], "value", None)
        text = "" if owner is None else ast.unparse(owner)
        if isinstance(name, str) and isinstance(owner, ast.Name | ast.Attribute) and text not in imported:
            yield text.rpartition(".")[2], name


def unlisted(tree: ast.Module, imported: dict[str, str], own: set[str]) -> list[str]:
    """The attributes of host objects that are in no list and not our own."""
    found = []
    for called, name in attributes_used(tree, imported):
        classes = OBJECTS.get(called, "").split()
        listed = " ".join(names.get(cls, "") for cls in classes for names in (ATTRIBUTES, ATTRIBUTES_ASKED_FOR)).split()
        if "torch.Tensor" in classes:
            listed += dir(torch.Tensor)
        if classes and name not in [*listed, *own] and not name.startswith(("__", "_t2v")):
            found.append(f"{called}.{name}")
    return found


def check_every_listed_attribute_of_host_objects_is_there(host):
    for path, names in ATTRIBUTES.items():
        module, _, cls = path.rpartition(".")
        for name in names.split():
            assert has(getattr(importlib.import_module(module), cls), name), f"{path}.{name} has gone"
    vae = importlib.import_module("comfy.sd").VAE
    assert not has(vae, "first_stage"), "the search finds everything"


def check_every_attribute_taken_from_host_objects_is_listed(host):
    parsed = [(path, tree, local_modules(tree) | imported) for path, tree, imported in trees(host.pack)]
    classes = [node for _, tree, _ in parsed for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    windows = ast.parse((host.pack / "t2v_models" / "sampling" / "windows.py").read_text(encoding="utf-8"))
    own = set().union(*map(set_on_self, [*classes, *(node for node in windows.body if isinstance(node, ast.ClassDef))]))
    found = {f"{path.name}: {each}" for path, tree, imported in parsed for each in unlisted(tree, imported, own)}
    assert not found, sorted(found)
    taken = {name for _, tree, imported in parsed for _, name in attributes_used(tree, imported)}
    taken |= {node.value for _, tree, _ in parsed for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    overridden = {node.name for cls in classes for node in cls.body if isinstance(node, ast.FunctionDef)}
    listed = set(" ".join([*ATTRIBUTES.values(), *ATTRIBUTES_ASKED_FOR.values()]).split())
    assert listed <= taken | own | overridden, f"listed and not used: {listed - taken - own - overridden}"
    assert unlisted(ast.parse("model.patches_of_weights"), {}, own), "the search finds nothing"


def local_modules(tree: ast.Module) -> dict[str, str]:
    """Modules of the pack by the names that a file gives them."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    return {alias.asname or alias.name: alias.name for node in imports for alias in node.names}
