"""Models whose parts have other names, shapes and types than theirs are refused in a sentence, or described."""

from __future__ import annotations

import random

import pytest
import torch

from t2v_models import load_pipeline
from t2v_models.checkpoints import open_checkpoint
from t2v_models.checkpoints.tensors import LazyTensor
from t2v_models.errors import T2VError

from .support.checkpoints import all_in_one, in_layout, text_weights, vae_weights

pytestmark = pytest.mark.slow

SHAPES = [(), (0,), (1,), (2**40, 2**40), (3, 0, 2**47), (7,) * 20, (2**30,), (64, 64, 3, 3, 3)]
DTYPES = [torch.int64, torch.bool, torch.float64, torch.uint8]


def mutated(rng: random.Random) -> dict[str, LazyTensor]:
    """Names, shapes and types of a model, some of which are changed; nothing of it is ever read."""
    prefix = rng.choice(["", "state_dict.", "model."])
    source = rng.choice(
        [all_in_one(), in_layout("diffusers"), in_layout("modelscope"), vae_weights(), text_weights(),
         {f"t.{n}": t for n, t in text_weights().items()} | {f"v.{n}": t for n, t in vae_weights().items()}]
    )  # fmt: skip
    tensors = {prefix + n: LazyTensor(t.dtype, tuple(t.shape), lambda t=t: t) for n, t in source.items()}
    extra = {"step": 3, "scale_arr": 1, "v_pred": 1, "t2v_config": 9}
    for _ in range(rng.choice([1, 1, 2, 5])):
        name = rng.choice(list(tensors))
        old = tensors[name]
        shape = rng.choice([*SHAPES, old.shape[::-1], (*old.shape, 1), old.shape[:-1], tuple(2 * n for n in old.shape)])
        change = rng.randrange(5)
        if change == 0:
            del tensors[name]
        elif change == 1:
            tensors[name] = LazyTensor(old.dtype, shape, old.load)
        elif change == 2:
            tensors[name] = LazyTensor(rng.choice(DTYPES), old.shape, old.load)
        elif change == 3:
            digits = [i for i, c in enumerate(name) if c.isdigit()] or [0]
            at = rng.choice(digits)
            tensors[name[:at] + rng.choice(["9", "999", "", "-1", "\u0663", "x"]) + name[at + 1 :]] = old
        else:
            key, count = rng.choice(list(extra.items()))
            value = rng.choice(
                [torch.zeros(0), torch.full((count,), float("nan")), torch.zeros(count, dtype=torch.uint8)]
            )
            tensors[key] = LazyTensor.of(value)
        if not tensors:
            break
    return tensors


def described(tensors: dict[str, LazyTensor]) -> object:
    """All that can be said of a model without reading its weights."""
    checkpoint = open_checkpoint(tensors)
    kinds = checkpoint.info.parts
    found = [checkpoint.vae_config()] if "vae" in kinds else []
    found += [checkpoint.text_encoder_config()] if "text_encoder" in kinds else []
    return (
        found,
        checkpoint.lazy_unet() if "unet" in kinds else None,
        checkpoint.lazy_vae(),
        checkpoint.lazy_text_encoder(),
    )


def test_no_bare_exception_leaves_the_recognition_of_parts() -> None:
    counts = {"described": 0, "refused": 0}
    for seed in range(250):
        try:
            described(mutated(random.Random(seed)))
            counts["described"] += 1
        except T2VError:
            counts["refused"] += 1
        except Exception as error:
            pytest.fail(f"seed {seed}: {type(error).__name__}: {error}")
    assert min(counts.values()) > 10, counts


@pytest.mark.parametrize(
    ("dtype", "advised", "never"),
    [(torch.float32, "LoRAs", "fp32"), (torch.bfloat16, "fp32", "bf16"), (torch.float16, "fp32 or bf16", "LoRAs")],
)
def test_an_error_of_latents_that_are_no_numbers_advises_no_type_that_is_in_use(
    dtype, advised: str, never: str
) -> None:
    pipeline = load_pipeline("built-in", dtype=dtype)
    with pytest.raises(T2VError, match=advised) as caught:
        pipeline.check_finite(torch.full((1, 4, 2, 8, 8), float("nan")))
    assert never not in str(caught.value)
