"""Configurations, tokenizers and saved settings of a stranger are used in their own form only."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from t2v_models import loading
from t2v_models.builtin_model import BUILT_IN_FOLDER
from t2v_models.checkpoints import load_unet, open_checkpoint
from t2v_models.errors import T2VError

from .support.checkpoints import diffusers_folder, in_layout


def edited(path: Path, values: Any) -> None:
    """Write a JSON file's entries with `values` among them, or something else in its place."""
    if isinstance(values, dict) and path.exists():
        values = json.loads(path.read_text()) | values
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(values))


def configurations(folder: Path) -> list[dict[str, Any]]:
    """All that is read of a model's configurations."""
    checkpoint = open_checkpoint(folder)
    return [checkpoint.vae_config(), checkpoint.text_encoder_config(), checkpoint.scheduler_config()]


WRONG: list[tuple[str, Any]] = [
    ("vae/config.json", ["a"]),
    ("vae/config.json", {"scaling_factor": "0.18215"}),
    ("vae/config.json", {"scaling_factor": float("nan")}),
    ("vae/config.json", {"scaling_factor": 0}),
    ("vae/config.json", {"norm_num_groups": -4}),
    ("vae/config.json", {"act_fn": {"a": 1}}),
    ("text_encoder/config.json", 3),
    ("text_encoder/config.json", {"num_attention_heads": 10**12}),
    ("text_encoder/config.json", {"num_attention_heads": 5}),
    ("text_encoder/config.json", {"hidden_act": "__import__"}),
    ("text_encoder/config.json", {"eos_token_id": [1]}),
    ("text_encoder/config.json", {"layer_norm_eps": "small"}),
    ("scheduler/scheduler_config.json", "scaled_linear"),
    ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**12}),
    ("scheduler/scheduler_config.json", {"num_train_timesteps": "1000"}),
    ("scheduler/scheduler_config.json", {"beta_start": float("nan")}),
    ("scheduler/scheduler_config.json", {"beta_end": [0.012]}),
    ("scheduler/scheduler_config.json", {"beta_schedule": ["linear"]}),
    ("scheduler/scheduler_config.json", {"trained_betas": {"a": 1}}),
    ("scheduler/scheduler_config.json", {"prediction_type": "sample" * 100_000}),
    ("unet/config.json", [[]]),
]


@pytest.mark.parametrize(("file", "values"), WRONG, ids=[f"{file}-{i}" for i, (file, _) in enumerate(WRONG)])
def test_a_value_of_another_form_is_refused_in_one_short_sentence(tmp_path: Path, file: str, values: Any) -> None:
    folder = diffusers_folder(tmp_path)
    edited(folder / file, values)
    with pytest.raises(T2VError) as caught:
        configurations(folder)
    assert str(folder) in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("part", "values"),
    [
        (
            "vae",
            {"layers_per_block": 10**9, "block_out_channels": ["a"], "down_block_types": None, "auto_map": {"a": "b"}},
        ),
        (
            "text_encoder",
            {"num_hidden_layers": 10**9, "num_labels": 10**12, "quantization_config": {"a": 1}, "id2label": 3},
        ),
        (
            "unet",
            {"block_out_channels": [10**9], "layers_per_block": "x", "norm_eps": float("inf"), "sample_size": 10**30},
        ),
        ("unet", {"t2v": {"family": "x" * 10**6, "frames": 10**30, "betas": [[[[1]]]], "speed_words": 3}}),
    ],
)
def test_what_shapes_say_is_not_taken_from_a_configuration(tmp_path: Path, part: str, values: dict[str, Any]) -> None:
    folder = diffusers_folder(tmp_path)
    plain = open_checkpoint(folder)
    edited(folder / part / "config.json", values)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.config == plain.config
    assert checkpoint.vae_config() == plain.vae_config()
    assert checkpoint.text_encoder_config() == plain.text_encoder_config()
    assert checkpoint.info.defaults == plain.info.defaults


def test_the_built_in_models_own_values_are_used() -> None:
    checkpoint = open_checkpoint(BUILT_IN_FOLDER)
    vae, text = checkpoint.vae_config(), checkpoint.text_encoder_config()
    assert (vae["scaling_factor"], vae["norm_num_groups"]) == (0.43567, 8)
    assert (text["num_attention_heads"], text["hidden_act"], text["eos_token_id"]) == (4, "quick_gelu", 826)
    scheduler = json.loads((BUILT_IN_FOLDER / "scheduler" / "scheduler_config.json").read_text())
    assert checkpoint.scheduler_config() == scheduler


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("vocab.json", ["a"]),
        ("vocab.json", {"a": "1"}),
        ("vocab.json", {"a": 10**12}),
        ("vocab.json", "[" * 100_000),
        ("tokenizer_config.json", {"pad_token": ["a"]}),
        ("tokenizer_config.json", {"eos_token": "a" * 10**6}),
        ("tokenizer_config.json", {"model_max_length": "many"}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"9" * 40: {}}}),
        ("special_tokens_map.json", 3),
        ("added_tokens.json", {"a": -1}),
        ("merges.txt", "a b\n" * (5 << 20)),
    ],
)
def test_a_tokenizers_file_of_another_form_is_named(tmp_path: Path, file: str, values: Any) -> None:
    folder = tmp_path / "tokenizer"
    shutil.copytree(BUILT_IN_FOLDER / "tokenizer", folder)
    (folder / file).write_text(values if isinstance(values, str) else json.dumps(values))
    with pytest.raises(T2VError, match=file.replace(".", r"\.")) as caught:
        loading.load_tokenizer(folder)
    assert len(str(caught.value)) < 600


def test_weights_that_are_no_numbers_are_named_when_a_model_is_loaded(tmp_path: Path) -> None:
    for value in (float("nan"), float("inf")):
        tensors = in_layout("modelscope")
        name = next(name for name in tensors if name.endswith("to_q.weight"))
        tensors[name] = tensors[name].index_fill(0, torch.tensor([3]), value)
        save_file(tensors, tmp_path / "model.safetensors")
        for read in (load_unet, lambda path: open_checkpoint(path).unet()):
            with pytest.raises(T2VError, match=r"model\.safetensors holds values that are no numbers.*to_q"):
                read(tmp_path / "model.safetensors")


@pytest.mark.parametrize("name", ["down_blocks.{}.resnets.0.conv1.weight", "down_blocks.0.resnets.{}.conv1.weight",
                                  "input_blocks.{}.0.in_layers.2.weight"])  # fmt: skip
def test_a_network_of_a_thousand_levels_or_blocks_is_refused_before_it_is_built(tmp_path: Path, name: str) -> None:
    layout = "diffusers" if "down" in name else "modelscope"
    tensors = in_layout(layout)
    tensors |= {name.format(i): torch.zeros(32, 32, 3, 3) for i in range(5, 900)}
    if "input" in name:
        tensors |= {f"input_blocks.{i}.op.weight": torch.zeros(1) for i in range(5, 900, 2)}
    with pytest.raises(T2VError):
        load_unet(tensors)
