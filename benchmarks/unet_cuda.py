"""Our UNet against diffusers' UNet3DConditionModel on a CUDA GPU, in half precision, with the same random weights.

    python benchmarks/unet_cuda.py                       # 1.41 billion parameters: 8 GB of the GPU's memory
    python benchmarks/unet_cuda.py --sizes 24x40x72      # ZeroScope's

A step is one call with a batch of two, as classifier-free guidance makes it. The networks run in turn; a figure is the
median over the rounds, between events of the GPU. "ours, one latent" is the same step as our pipeline makes it: one
latent with two texts. Memory is what a step takes beyond the weights. Differences are from diffusers in fp32.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.unet import DTYPES, FULL, QUICK, contestants, inputs, random_weight, size_of
from t2v_models.checkpoints.layouts import canonical_shapes
from t2v_models.unet import UNetConfig

GPU_DTYPES = {"fp16": torch.float16, **DTYPES}


def weights(config: UNetConfig, dtype: torch.dtype) -> dict[str, Tensor]:
    """On the GPU, one tensor in float32 at a time."""
    generator = torch.Generator("cuda").manual_seed(0)
    return {name: random_weight(name, shape, generator).to(dtype) for name, shape in canonical_shapes(config).items()}


def step_time(call: Callable[[], Tensor]) -> tuple[float, float]:
    """Seconds of one call, and bytes that it took at most beyond what was held before."""
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000, torch.cuda.max_memory_allocated() - held


def compare(calls: dict[str, Callable], given: list[Tensor], rounds: int, exact: Tensor | None) -> dict[str, dict]:
    """Every network in turn, `rounds` times, after one round that does not count."""
    names, runs = list(calls), {name: [] for name in calls}
    outputs = {name: calls[name](*given).float() for name in names}
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            runs[name].append(step_time(partial(calls[name], *given)))
    rows = {}
    for name in names:
        seconds = statistics.median(each for each, _ in runs[name])
        ratio = statistics.median(one / ours for (one, _), (ours, _) in zip(runs[name], runs["ours"], strict=True))
        difference = None if exact is None else float((outputs[name] - exact).abs().max() / exact.abs().max())
        peak = max(peak for _, peak in runs[name])
        rows[name] = {"seconds": seconds, "over_ours": ratio, "peak_bytes": peak, "difference": difference}
    return rows


def table(title: str, rows: dict[str, dict]) -> str:
    lines = [title, f"  {'network':<26}{'ms/step':>9}{'x ours':>8}{'peak MB':>9}{'difference':>12}"]
    for name, row in rows.items():
        difference = "-" if row["difference"] is None else f"{row['difference']:.1e}"
        lines.append(
            f"  {name:<26}{1000 * row['seconds']:>9.1f}{row['over_ours']:>8.2f}{row['peak_bytes'] / 1e6:>9.0f}"
            f"{difference:>12}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a network of a tenth of the size")
    parser.add_argument("--sizes", nargs="+", type=size_of, default=[(16, 32, 32), (24, 40, 72)], metavar="TxHxW")
    parser.add_argument("--dtypes", nargs="+", choices=GPU_DTYPES, default=["fp16", "bf16"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, help="write the figures there as JSON")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("torch sees no CUDA device here: this benchmark is for one, benchmarks/unet.py for a processor.")
    config, results = QUICK if given.quick else FULL, {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
    print(results["gpu"], results["torch"])
    with torch.inference_mode():
        for size in given.sizes:
            exact = contestants(config, weights(config, torch.float32), ["diffusers"])
            reference = {name: call(*inputs(config, size, torch.float32, "cuda")) for name, call in exact.items()}
            del exact
            for name in given.dtypes:
                dtype = GPU_DTYPES[name]
                calls = contestants(config, weights(config, dtype), ["ours", "diffusers"])
                rows = compare(calls, inputs(config, size, dtype, "cuda"), given.rounds, reference.get("diffusers"))
                del calls
                results[title := f"{name} {'x'.join(map(str, size))}"] = rows
                print(table(title, rows), flush=True)
    if given.output:
        given.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
