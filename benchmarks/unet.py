"""Our UNet against diffusers' UNet3DConditionModel and ModelScope's UNetSD, on a CPU, with the same random weights.

    python benchmarks/unet.py                     # 1.41 billion parameters: 9 GB of memory, 6 GB of disk, half an hour
    python benchmarks/unet.py --quick             # a tenth of them
    python benchmarks/unet.py --output unet.json

A step is one call with a batch of two, as classifier-free guidance makes it. The networks run in turn in one process,
so that what else the machine does meets all of them; ratios are medians over the rounds. "ours, one latent" is the same
step as our pipeline makes it: one latent with two texts, so that what does not depend on the text is computed once.
Memory is what a step takes beyond the weights. Rates count the reference's multiplications and additions.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import (
    Rate,
    Run,
    drop_cache,
    machine,
    matmul_rate,
    measured,
    peak_memory,
    plain_read,
    reset_peak,
    touch,
)
from t2v_models.checkpoints import LAYOUTS, load_unet, open_checkpoint
from t2v_models.checkpoints.diffusers_layout import to_json
from t2v_models.checkpoints.layouts import canonical_shapes
from t2v_models.checkpoints.tensors import LazyTensor, as_lazy, load_all
from t2v_models.checkpoints.writing import write_safetensors
from t2v_models.unet import UNet3D, UNetConfig
from tests.references.parity import modelscope_unet

FULL = UNetConfig()
QUICK = UNetConfig(channels=(96, 192, 384, 384), head_dim=32)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
TOKENS = 77

Call = Callable[[Tensor, Tensor, Tensor], Tensor]
Weights = dict[str, Tensor]


def write_weights(config: UNetConfig, folder: Path) -> Path:
    """A diffusers folder of weights that keep a signal's size through the network; one tensor in memory at a time."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: LazyTensor(torch.float32, shape, partial(random_weight, name, shape, generator))
        for name, shape in canonical_shapes(config).items()
    }
    path = folder / "diffusion_pytorch_model.safetensors"
    write_safetensors(path, LAYOUTS["diffusers"].from_canonical(tensors, config), {}, lambda count: None)
    (folder / "config.json").write_text(json.dumps(to_json(config)))
    return path


def random_weight(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """One that keeps a signal's size through the network, on the generator's device."""
    if len(shape) == 1:
        return torch.full(shape, float(name.endswith("weight")), device=generator.device)
    spread = torch.Size(shape[1:]).numel() ** -0.5
    return torch.empty(shape, device=generator.device).normal_(0, spread, generator=generator)


def contestants(config: UNetConfig, weights: Weights, wanted: list[str]) -> dict[str, Call]:
    """The networks that are installed, all on the same memory."""
    calls: dict[str, Call] = {}
    if "ours" in wanted:
        ours = _with_weights(lambda: UNet3D(config), weights)
        ours.to(memory_format=torch.channels_last)  # as `load_pipeline` does
        calls["ours"] = ours
        calls["ours, one latent"] = lambda x, t, context: ours(x[:1], t[:1], context)
    if "diffusers" in wanted and (build := _diffusers(config)):
        diffusers = _with_weights(build, _renamed(weights, config, "diffusers"))
        calls["diffusers"] = lambda x, t, context: diffusers(x, t, context).sample
    if "modelscope" in wanted and (build := _modelscope(config)):
        calls["modelscope"] = _with_weights(build, _renamed(weights, config, "modelscope"))
    return calls


def _with_weights(build: Callable[[], nn.Module], weights: Weights) -> nn.Module:
    with torch.device("meta"):
        module = build()
    module.load_state_dict(weights, assign=True)
    return module.eval().requires_grad_(False)


def _renamed(weights: Weights, config: UNetConfig, layout: str) -> Weights:
    """The same memory under another layout's names."""
    return load_all(LAYOUTS[layout].from_canonical(as_lazy(weights), config))


def _diffusers(config: UNetConfig) -> Callable[[], nn.Module] | None:
    try:
        from diffusers import UNet3DConditionModel
    except ImportError:
        return None
    fields = {name: value for name, value in to_json(config).items() if not name.startswith("_")}
    return lambda: UNet3DConditionModel(**fields)


def _modelscope(config: UNetConfig) -> Callable[[], nn.Module] | None:
    reference = modelscope_unet()
    if reference is None:
        return None
    width = config.channels[0]
    return lambda: reference(
        in_dim=config.in_channels,
        dim=width,
        y_dim=768,
        context_dim=config.context_dim,
        out_dim=config.out_channels,
        dim_mult=[channels // width for channels in config.channels],
        num_heads=config.init_heads,
        head_dim=config.head_dim,
        num_res_blocks=config.num_res_blocks,
        attn_scales=[2.0**-level for level, attends in enumerate(config.attention_levels) if attends],
        temporal_attention="True",
    )


def inputs(config: UNetConfig, size: tuple[int, int, int], dtype: torch.dtype, device: str = "cpu") -> list[Tensor]:
    """A guided step's latents, timesteps and texts."""
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(1, config.in_channels, *size, generator=generator).repeat(2, 1, 1, 1, 1)
    context = torch.randn(2, TOKENS, config.context_dim, generator=generator)
    return [latents.to(device, dtype), torch.tensor([501, 501], device=device), context.to(device, dtype)]


def flops(config: UNetConfig, size: tuple[int, int, int]) -> int:
    """Multiplications and additions of a step as the reference makes it."""
    build = _diffusers(config) or (lambda: UNet3D(config))
    with torch.device("meta"):
        module = build()
    with FlopCounterMode(display=False) as counter:
        module(*inputs(config, size, torch.float32, "meta"))
    return counter.get_total_flops()


def compare(calls: dict[str, Call], given: list[Tensor], rounds: int, count: int, dtype: torch.dtype) -> dict[str, Any]:
    """Every network in turn, `rounds` times."""
    runs: dict[str, list[tuple[Run, Rate]]] = {name: [] for name in calls}
    names, rates = list(calls), [matmul_rate(dtype)]
    outputs: dict[str, Tensor] = {}
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:

            def step(name: str = name) -> None:
                outputs[name] = calls[name](*given)

            run = measured(step)
            rates.append(matmul_rate(dtype))
            runs[name].append((run, _mean(*rates[-2:])))
            print(f"    round {turn + 1}, {name}: {run.seconds:.1f} s ({run.cpu_seconds:.1f} s of processor time)")
    reference = next(iter(outputs.values())).float()
    results = {}
    for name, measurements in runs.items():
        seconds = [run.seconds for run, _ in measurements]
        peaks = [run.peak_bytes for run, _ in measurements if run.peak_bytes is not None]
        results[name] = {
            "seconds": statistics.median(seconds),
            "cpu_seconds": statistics.median(run.cpu_seconds for run, _ in measurements),
            "gflops": count / statistics.median(seconds) / 1e9,
            "share_of_matmul_rate": statistics.median(
                count / run.seconds / rate.by_clock for run, rate in measurements
            ),
            "share_by_cpu": statistics.median(count / run.cpu_seconds / rate.by_cpu for run, rate in measurements),
            "peak_megabytes": statistics.median(peaks) / 1e6 if peaks else None,
            "difference": float((outputs[name].float() - reference).abs().max() / reference.abs().max()),
            "all_seconds": seconds,
        }
        for quantity in ("seconds", "cpu_seconds"):
            ratios = (
                getattr(a, quantity) / getattr(b, quantity)
                for (a, _), (b, _) in zip(measurements, runs[names[0]], strict=True)
            )
            results[name][f"{quantity}_over_{names[0]}"] = statistics.median(ratios)
    matmul = statistics.median(rate.by_clock for rate in rates)
    return {"matmul_gflops": matmul / 1e9, "gflop": count / 1e9, "networks": results}


def _mean(a: Rate, b: Rate) -> Rate:
    return Rate((a.by_clock + b.by_clock) / 2, (a.by_cpu + b.by_cpu) / 2)


def loading(path: Path) -> dict[str, Any]:
    """Seconds and memory to load a safetensors file and touch every tensor, against one plain read of it."""
    results: dict[str, Any] = {"file_megabytes": path.stat().st_size / 1e6}
    for cache in ("cold", "warm"):
        rows: dict[str, Any] = {}
        for name in ("plain read", "ours", "diffusers"):
            if cache == "cold" and not drop_cache(path):
                continue
            command = [sys.executable, str(Path(__file__).resolve()), "--load", name, str(path.parent)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                rows[name] = json.loads(done.stdout.splitlines()[-1])
        results[cache] = rows
    return results


def load_once(name: str, folder: Path) -> dict[str, float | None]:
    """In a process of its own: load, touch every tensor, tell."""
    path = folder / "diffusion_pytorch_model.safetensors"
    if name == "plain read":
        return {"seconds": plain_read(path), "peak_over_file": None}
    if name == "diffusers":
        from diffusers import UNet3DConditionModel
    held = reset_peak()
    start = time.perf_counter()
    unet = load_unet(folder) if name == "ours" else UNet3DConditionModel.from_pretrained(folder)
    loaded = time.perf_counter() - start
    touch(list(unet.parameters()))
    seconds, peak = time.perf_counter() - start, peak_memory()
    over = None if held is None or peak is None else (peak - held) / path.stat().st_size
    return {"seconds": seconds, "before_touching": loaded, "peak_over_file": over}


def table(title: str, result: dict[str, Any]) -> str:
    """The networks of one size and type."""
    lines = [
        f"{title}: {result['gflop'] / 1e3:.2f} TFLOP a step, matmul at {result['matmul_gflops']:.1f} GFLOP/s",
        f"  {'network':<18}{'s/step':>9}{'CPU s':>9}{'GFLOP/s':>9}{'of matmul':>11}{'by CPU':>8}"
        f"{'peak MB':>9}{'x ours':>8}{'CPU x':>7}",
    ]
    for name, row in result["networks"].items():
        first = next(iter(result["networks"]))
        peak = f"{row['peak_megabytes']:.0f}" if row["peak_megabytes"] is not None else "-"
        lines.append(
            f"  {name:<18}{row['seconds']:>9.2f}{row['cpu_seconds']:>9.2f}{row['gflops']:>9.1f}"
            f"{row['share_of_matmul_rate']:>11.0%}{row['share_by_cpu']:>8.0%}{peak:>9}"
            f"{row[f'seconds_over_{first}']:>8.2f}{row[f'cpu_seconds_over_{first}']:>7.2f}"
        )
    return "\n".join(lines)


def load_table(result: dict[str, Any]) -> str:
    lines = [f"Loading {result['file_megabytes']:.0f} MB of safetensors and touching every tensor"]
    for cache in ("cold", "warm"):
        for name, row in result[cache].items():
            over = row["seconds"] / result[cache]["plain read"]["seconds"]
            memory = "" if row["peak_over_file"] is None else f", memory {row['peak_over_file']:.2f} of the file"
            lines.append(f"  {cache} cache, {name:<11}{row['seconds']:>8.2f} s, {over:.2f} plain reads{memory}")
    return "\n".join(lines)


def size_of(text: str) -> tuple[int, int, int]:
    frames, height, width = (int(part) for part in text.split("x"))
    return frames, height, width


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a network of a tenth of the size")
    parser.add_argument("--sizes", nargs="+", type=size_of, default=[(8, 32, 32), (16, 32, 32)], metavar="TxHxW")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--networks", nargs="+", default=["ours", "diffusers", "modelscope"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=300, help="leave out what takes more seconds a step than this")
    parser.add_argument("--threads", type=int, help="processor threads; all where not given")
    parser.add_argument("--no-loading", action="store_true", help="do not measure loading")
    parser.add_argument("--folder", type=Path, help="where the file to load is written; a temporary one by default")
    parser.add_argument("--output", type=Path, help="write the figures there as JSON")
    parser.add_argument("--load", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    given = arguments()
    logging.disable(logging.WARNING)
    if given.load:
        print(json.dumps(load_once(given.load[0], Path(given.load[1]))))
        return
    if given.threads:
        torch.set_num_threads(given.threads)
    config = QUICK if given.quick else FULL
    count = sum(torch.Size(shape).numel() for shape in canonical_shapes(config).values())
    results: dict[str, Any] = {"machine": machine(), "parameters": count, "steps": {}}
    print(f"{count / 1e6:.0f} million parameters; {results['machine']}")
    with tempfile.TemporaryDirectory(dir=given.folder) as folder, torch.inference_mode():
        path = write_weights(config, Path(folder))
        if not given.no_loading:
            results["loading"] = loading(path)
            print(load_table(results["loading"]))
        weights = open_checkpoint(path.parent).unet()  # mapped: all networks share these pages
        touch(list(weights.values()))
        for dtype_name in given.dtypes:
            dtype = DTYPES[dtype_name]
            calls = contestants(config, {name: value.to(dtype) for name, value in weights.items()}, given.networks)
            for call in calls.values():  # what a process does once
                call(*inputs(config, (1, 8, 8), dtype))
            for size in given.sizes:
                title = f"{dtype_name} {'x'.join(map(str, size))}"
                operations, rate = flops(config, size), matmul_rate(dtype).by_clock
                if operations / rate > given.limit:
                    results["steps"][title] = {
                        "left_out": f"{operations / rate:.0f} s a step at {rate / 1e9:.1f} GFLOP/s"
                    }
                    print(f"{title}: left out, {results['steps'][title]['left_out']} at best on this processor")
                    continue
                result = compare(calls, inputs(config, size, dtype), given.rounds, operations, dtype)
                results["steps"][title] = result
                print(table(title, result))
    if given.output:
        given.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
