"""Run inside a ComfyUI's own Python: boots the host in this process, runs the checks of files, writes JSON.

    python in_host.py HOST BASE RESULT_FILE CHECKS_FILE ...

Never imported by the tests: a process that holds the host must not have this repository on its path.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import cancelling  # noqa: F401
import clip_files  # noqa: F401  (for the checks: this folder is on the path only now)
import clip_noise  # noqa: F401
import cross_frame_node  # noqa: F401
import image_models  # noqa: F401
import low_memory  # noqa: F401
import small_image_unets  # noqa: F401
import zero_shot_node  # noqa: F401


def boot(host: Path, base: Path) -> None:
    """Everything that main.py sets up before it serves, as far as nodes need it."""
    sys.path[0] = str(host)
    os.chdir(host)
    sys.argv = ["main.py", "--cpu", "--base-directory", str(base), "--disable-api-nodes"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.cli_args
    import folder_paths

    del comfy.cli_args
    folder_paths.base_path = str(base)
    for kind, (paths, extensions) in list(folder_paths.folder_names_and_paths.items()):
        moved = [path for path in paths if str(base) in path] or [str(base / "models" / kind)]
        folder_paths.folder_names_and_paths[kind] = (moved, extensions)
    folder_paths.models_dir = str(base / "models")
    folder_paths.set_output_directory(str(base / "output"))
    folder_paths.set_input_directory(str(base / "input"))
    import utils.extra_config  # noqa: F401  (before nodes.py puts comfy/ on the path)


async def load_nodes(pack: Path) -> None:
    """Core's nodes, then the pack as the host loads it."""
    import execution  # noqa: F401
    import server

    import nodes

    loop = asyncio.get_running_loop()
    server.PromptServer(loop)
    await nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False)
    if not await nodes.load_custom_node(str(pack)):
        raise RuntimeError("the host could not load the pack")


class Context:
    """What a check is given."""

    story = "0-50%: a red circle / 50%-100%: a blue square"

    def __init__(self, base: Path, pack: Path) -> None:
        self.base, self.pack = base, pack
        self.cache: dict = {}

    def node(self, name: str):
        """A node class by its id."""
        import nodes

        return nodes.NODE_CLASS_MAPPINGS[name]

    def run(self, name: str, *args, **kwargs):
        """Execute a node, V3 or not; returns its outputs."""
        cls = self.node(name)
        if hasattr(cls, "define_schema"):
            result = cls.PREPARE_CLASS_CLONE(None).execute(*args, **kwargs)
            return result.args if hasattr(result, "args") else result
        return getattr(cls(), cls.FUNCTION)(*args, **kwargs)

    def module(self, name: str):
        """A module of the pack, such as nodes.host.models.vae."""
        pack = self.node("T2VModelLoader").__module__.rsplit(".nodes.", 1)[0]
        return importlib.import_module(f"{pack}.{name}")

    def tiny(self, name: str = "tiny", dtype: str = "default"):
        """MODEL, CLIP, VAE of the random model, loaded once."""
        key = (name, dtype)
        if key not in self.cache:
            self.cache[key] = self.run("T2VModelLoader", name, dtype)[:3]
        return self.cache[key]

    def conds(self, clip, *texts: str):
        return [self.run("T2VTextEncode", clip, text)[0] for text in texts]

    def sample(self, model, positive, negative, frames=4, steps=3, seed=1):
        """A small clip by T2VVideoSampler."""
        (latent,) = self.run("T2VEmptyLatent", 32, 32, frames, 1)
        how = (seed, steps, 4.0, "ddim", "diffusers", 1.0)
        return self.run("T2VVideoSampler", model, positive, negative, latent, *how)[0]["samples"]

    def ksample_video(self, model, positive, negative, frames=4, seed=1):
        """The same by core's KSampler."""
        (latent,) = self.run("T2VEmptyLatent", 32, 32, frames, 1)
        return self.ksample(model, None, conds=(positive, negative), cfg=4.0, seed=seed, **latent)

    @staticmethod
    def refusal(call) -> str:
        """What a call says when it refuses."""
        try:
            call()
        except ValueError as error:
            return str(error)
        raise AssertionError("nothing was refused")

    @staticmethod
    def demand_cancelled(call) -> None:
        """Fail unless a call, which asks the host to interrupt it, is interrupted; the host works on afterwards."""
        import comfy.model_management as management

        stopped = "not at all"
        try:
            call()
        except BaseException as error:  # newer hosts' interrupt is no Exception
            stopped = type(error).__name__
        finally:
            management.interrupt_current_processing(False)
        assert "Interrupt" in stopped, stopped

    @staticmethod
    def difference(one, other) -> float:
        """Largest difference, where the values are of order one."""
        return float((one - other).abs().max() / one.std())

    def prompts(self, clip):
        """A prompt and an empty one, encoded by core."""
        return self.run("CLIPTextEncode", clip, "a red circle")[0], self.run("CLIPTextEncode", clip, "")[0]

    def ksample(
        self, model, clip, samples=None, sampler="euler", cfg=5.0, steps=3, denoise=1.0, conds=None, seed=3, **latent
    ):
        """Four frames, or `samples`, by core's KSampler."""
        import torch

        latent = {"samples": torch.zeros(1, 4, 4, 8, 8) if samples is None else samples, **latent}
        args = (model, seed, steps, cfg, sampler, "normal", *(conds or self.prompts(clip)), latent, denoise)
        return self.run("KSampler", *args)[0]["samples"]


def run_file(path: Path, context: Context) -> Iterator[tuple[str, dict]]:
    """The name of every check of a file, and what came of it."""
    import torch

    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in [key for key in vars(module) if key.startswith("check_")]:
        start = time.monotonic()
        torch.manual_seed(int(os.environ.get("T2V_TEST_SEED", "0")))
        try:
            with torch.inference_mode():
                result = {"ok": True, "value": getattr(module, name)(context)}
        except BaseException:
            result = {"ok": False, "error": traceback.format_exc()}
        yield name, {**result, "seconds": round(time.monotonic() - start, 2)}


def main() -> int:
    host, base, result, *checks = map(Path, sys.argv[1:])
    boot(host, base)
    logging.basicConfig(level=logging.WARNING)
    pack = base / "custom_nodes" / "t2v-nodes"
    results: dict[str, dict[str, dict]] = {}

    async def run() -> None:
        await load_nodes(pack)
        import torch

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
        for path in checks:
            results[path.stem] = {}
            for name, outcome in run_file(path, Context(base, pack)):
                results[path.stem][name] = outcome
                result.write_text(json.dumps(results))

    asyncio.run(run())
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
