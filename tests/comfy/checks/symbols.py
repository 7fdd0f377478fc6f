"""What the pack takes from its host: only names that are known to last, and all of them there.

The names were the same in every version from 0.3.64 to 0.38; one more has to be looked up in all of them first.
"""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

STABLE = {
    "comfy.cli_args": "args",
    "comfy.conds": "CONDRegular CONDConstant",
    "comfy.context_windows": "IndexListContextHandler ContextSchedule ContextFuseMethod "
    "create_prepare_sampling_wrapper",
    "comfy.diffusers_convert": "convert_vae_state_dict",
    "comfy.latent_formats": "SD15",
    "comfy.ldm.modules.attention": "optimized_attention",
    "comfy.lora": "load_lora",
    "comfy.model_base": "BaseModel ModelType",
    "comfy.model_management": "OOM_EXCEPTION get_free_memory get_total_memory intermediate_device load_models_gpu "
    "soft_empty_cache throw_exception_if_processing_interrupted",
    "comfy.model_patcher": "ModelPatcher",
    "comfy.model_sampling": "ModelSamplingDiscrete EPS V_PREDICTION reshape_sigma",
    "comfy.patcher_extension": "WrappersMP WrapperExecutor get_all_wrappers",
    "comfy.sample": "prepare_noise sample_custom",
    "comfy.samplers": "KSampler KSAMPLER sampler_object",
    "comfy.sd": "CLIP VAE CLIPType load_text_encoder_state_dicts",
    "comfy.sd1_clip": "SDTokenizer SDClipModel SD1Tokenizer SD1ClipModel",
    "comfy.supported_models_base": "BASE",
    "comfy.utils": "ProgressBar load_torch_file weight_dtype state_dict_prefix_replace common_upscale "
    "calculate_parameters",
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
