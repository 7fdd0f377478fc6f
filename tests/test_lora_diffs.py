"""Whole changes in LoRA files (diff, diff_b) are added, and nothing in a LoRA file is left out without a word."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from t2v_models import load_pipeline
from t2v_models.__main__ import main
from t2v_models.builtin_model import BUILT_IN_FOLDER
from t2v_models.checkpoints import LAYOUTS, apply_loras, load_unet, open_checkpoint, read_lora
from t2v_models.checkpoints.convert import convert
from t2v_models.checkpoints.lora_lists import diffusers_order
from t2v_models.cli.inputs import read_lora_option
from t2v_models.errors import T2VError
from t2v_models.unet import UNet3D
from t2v_models.video import VideoReader

from .support.checkpoints import SMALL, random_tensors, unet_weights
from .support.model_folder import write_model_folder

RANK = 3
NORM = "input_blocks.1.0.in_layers.0"
SPATIAL = "input_blocks.1.1.transformer_blocks.0.attn1.to_out.0"
TEMPORAL = "middle_block.temporal.transformer_blocks.0.attn1.to_q"
CONVOLUTION = "middle_block.2.temporal_conv.conv2.3"


def whole_changes() -> dict[str, torch.Tensor]:
    """A change of every weight and every bias of the network, by canonical names."""
    return random_tensors({name: tuple(weight.shape) for name, weight in unet_weights().items()}, 5)


def copies() -> dict[str, torch.Tensor]:
    """Weights that a LoRA may change: those of `unet_weights` are shared by all tests."""
    return {name: weight.clone() for name, weight in unet_weights().items()}


def as_file(changes: dict[str, torch.Tensor], layout: str, root: str) -> dict[str, torch.Tensor]:
    """The changes by a layout's names after `root`, where "_" is kohya's way to write a name."""
    names, tensors = LAYOUTS[layout].names(SMALL), {}
    for name, change in changes.items():
        module, _, kind = names[name].rpartition(".")
        module = module.replace(".", "_") if root.endswith("_") else module
        shape = LAYOUTS[layout].reshape(name, tuple(change.shape))
        tensors[f"{root}{module}.{'diff' if kind == 'weight' else 'diff_b'}"] = change.reshape(shape)
    return tensors


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("root", ["diffusion_model.", "lora_unet_", "unet."])
def test_a_whole_change_of_every_weight_and_bias_is_added(tmp_path: Path, layout: str, root: str) -> None:
    changes = whole_changes()
    save_file(as_file(changes, layout, root), tmp_path / "whole.safetensors")
    weights = copies()
    (report,) = apply_loras(weights, [(tmp_path / "whole.safetensors", -0.7)])
    assert (report.applied, report.skipped) == (len(changes), ())
    assert all(torch.allclose(weights[name], unet_weights()[name] - 0.7 * changes[name], atol=1e-6) for name in weights)


def pair(name: str) -> dict[str, torch.Tensor]:
    shape = unet_weights()[f"{name}.weight"].shape
    made = random_tensors({"up": (shape[0], RANK), "down": (RANK, *shape[1:])}, 3)
    return {f"diffusion_model.{name}.lora_{half}.weight": tensor for half, tensor in made.items()}


def test_pairs_and_whole_changes_lie_in_one_file(tmp_path: Path) -> None:
    norm, bias = (
        torch.randn(unet_weights()[f"{NORM}.weight"].shape),
        torch.randn(unet_weights()[f"{SPATIAL}.bias"].shape),
    )
    tensors = {f"diffusion_model.{NORM}.w_norm": norm, f"diffusion_model.{SPATIAL}.diff_b": bias, **pair(SPATIAL)}
    save_file(tensors, tmp_path / "both.safetensors")
    lora = read_lora(tmp_path / "both.safetensors", SMALL)
    assert set(lora.unet) == {f"{NORM}.weight", f"{SPATIAL}.weight", f"{SPATIAL}.bias"}
    assert torch.equal(lora.unet[f"{NORM}.weight"].delta(norm.shape), norm)
    assert torch.equal(lora.unet[f"{SPATIAL}.bias"].delta(bias.shape), bias)


def test_a_whole_change_of_another_size_is_refused(tmp_path: Path) -> None:
    for change in (torch.zeros(7), torch.zeros(()), torch.zeros(2, 16)):
        save_file({f"diffusion_model.{NORM}.diff": change}, tmp_path / "other.safetensors")
        with pytest.raises(T2VError, match=r"other\.safetensors.*made for another one"):
            apply_loras(copies(), [(tmp_path / "other.safetensors", 1.0)])


LEFT_OUT = {
    "a value to be set": {f"diffusion_model.{NORM}.set_weight": torch.zeros(32)},
    "an alpha without a pair": {f"diffusion_model.{TEMPORAL}.alpha": torch.tensor(1.0)},
    "a second adapter": {f"diffusion_model.{SPATIAL}.lora_A.second.weight": torch.zeros(RANK, 32)},
    "a pair beside a whole change": {f"diffusion_model.{SPATIAL}.diff": torch.zeros(32, 32)},
    "a bias of no layer": {"diffusion_model.nothing.diff_b": torch.zeros(3)},
    "a bias of a layer without one": {f"diffusion_model.{TEMPORAL}.diff_b": torch.zeros(32)},
    "a pair by two names": {
        f"lora_unet_{SPATIAL.replace('.', '_')}.lora_{half}.weight": torch.zeros(32, 32) for half in ("up", "down")
    },
    "a pair of another kind of model": {f"lora_unet_joint_blocks_1.lora_{half}.weight": torch.zeros(2, 2)
                                        for half in ("up", "down")},
}  # fmt: skip


@pytest.mark.parametrize("what", LEFT_OUT)
def test_what_is_left_out_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str) -> None:
    save_file({**pair(SPATIAL), **LEFT_OUT[what]}, tmp_path / "more.safetensors")
    loras = [(tmp_path / "more.safetensors", 0.0)]
    with caplog.at_level(logging.WARNING):
        (report,) = apply_loras(copies(), loras)
    assert len(report.skipped) == 1
    assert f"1 keys applied, 1 do not fit this model: ['{report.skipped[0]}']" in caplog.text
    caplog.clear()
    save_file(dict(unet_weights()), tmp_path / "model.safetensors")
    with caplog.at_level(logging.WARNING):
        convert(tmp_path / "model.safetensors", tmp_path / "out.pth", "modelscope", loras=loras)
    assert report.skipped[0] in caplog.text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model_folder(tmp_path_factory.mktemp("model"))


def text_changes(folder: Path) -> dict[str, torch.Tensor]:
    """Changes of a linear layer, a norm and a bias of the text encoder, by the names of its weights."""
    weights = open_checkpoint(folder).text_encoder()
    layer = "text_model.encoder.layers.0"
    names = (f"{layer}.self_attn.q_proj.weight", f"{layer}.self_attn.q_proj.bias", f"{layer}.layer_norm1.weight",
             "text_model.final_layer_norm.bias", "text_model.embeddings.token_embedding.weight")  # fmt: skip
    return random_tensors({name: tuple(weights[name].shape) for name in names}, 8)


@pytest.mark.slow
@pytest.mark.parametrize("root", ["text_encoders.clip_h.transformer.", "text_encoder.", "lora_te_"])
def test_a_pipeline_has_the_changes_of_its_text_encoder(tmp_path: Path, folder: Path, root: str) -> None:
    changes, tensors = text_changes(folder), {}
    for name, change in changes.items():
        module, _, kind = name.rpartition(".")
        module = module.replace(".", "_") if root == "lora_te_" else module
        tensors[f"{root}{module}.{'diff' if kind == 'weight' else 'diff_b'}"] = change
    save_file(tensors, tmp_path / "texts.safetensors")
    base, changed = (load_pipeline(folder, loras=loras) for loras in ((), [(tmp_path / "texts.safetensors", 0.5)]))
    theirs = dict(base.text_encoder.state_dict())
    for name, weight in changed.text_encoder.state_dict().items():
        wanted = theirs[name] + 0.5 * changes.get(name, changes.get(f"text_model.{name}", torch.zeros(())))
        assert torch.allclose(weight, wanted, atol=1e-6), name
    unet = changed.unet.state_dict()
    assert all(torch.equal(weight, unet[name]) for name, weight in base.unet.state_dict().items())
    assert changed.identity() != base.identity()


def test_changes_of_a_text_encoder_that_are_not_applied_are_announced(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tensors = {"lora_te_text_model_final_layer_norm.diff": torch.zeros(32), **pair(SPATIAL)}
    save_file(tensors, tmp_path / "two.safetensors")
    with caplog.at_level(logging.WARNING):
        (report,) = apply_loras(copies(), [(tmp_path / "two.safetensors", 1.0)])
    assert (report.applied, report.text_encoder) == (1, 1)
    assert "1 weights of the text encoder, which stay as they are" in caplog.text
    save_file({"lora_te_text_model_encoder_layers_20_layer_norm1.diff": torch.zeros(32)}, tmp_path / "deep.safetensors")
    with pytest.raises(T2VError, match=r"deep\.safetensors changes a text encoder alone, and none of its 1 keys"):
        load_pipeline(folder, loras=[(tmp_path / "deep.safetensors", 1.0)])


def test_loras_of_a_pipeline_are_added_and_strength_0_changes_nothing(tmp_path: Path) -> None:
    name = "middle_block.1.transformer_blocks.0.attn1.to_q.weight"
    base = load_unet(BUILT_IN_FOLDER).state_dict()
    change = torch.randn(base[name].shape)
    save_file({f"diffusion_model.{name.removesuffix('.weight')}.diff": change}, tmp_path / "one.safetensors")
    file = tmp_path / "one.safetensors"
    twice, none = (
        load_pipeline(loras=loras).unet.state_dict() for loras in ([(file, 1.0), (file, -0.25)], [(file, 0.0)])
    )
    assert torch.allclose(twice[name], base[name] + 0.75 * change, atol=1e-6)
    assert all(torch.equal(weight, none[name]) for name, weight in base.items())
    assert all(torch.equal(weight, twice[other]) for other, weight in base.items() if other != name)


@pytest.mark.slow
def test_turbos_lora_makes_the_pipeline_that_the_converted_model_makes(tmp_path: Path, folder: Path) -> None:
    import dataclasses

    config = dataclasses.replace(open_checkpoint(folder).config, guidance_dim=256)
    flat = []
    for i, (_, shape) in enumerate(diffusers_order(config)):
        ones = (1,) * (len(shape) - 2)
        made = random_tensors({"up": (shape[0], 1, *ones), "down": (1, *shape[1:])}, i)
        flat += [made["up"], made["down"]]
    torch.save(flat, tmp_path / "unet_lora.pt")
    loras = [(tmp_path / "unet_lora.pt", 0.5)]
    convert(folder, tmp_path / "turbo", "diffusers", loras=loras)
    ours, theirs = load_pipeline(folder, loras=loras), load_pipeline(tmp_path / "turbo")
    assert ours.unet.config == theirs.unet.config == config
    assert ours.family.defaults == theirs.family.defaults
    assert all(torch.equal(a, b) for a, b in zip(ours.unet.parameters(), theirs.unet.parameters(), strict=True))


@pytest.mark.parametrize(
    ("text", "file", "strength"),
    [
        ("lora.pt", "lora.pt", 1.0),
        ("lora.pt:0.6", "lora.pt", 0.6),
        ("lora.pt=0.6", "lora.pt", 0.6),
        ("lora.pt:-1.5", "lora.pt", -1.5),
        ("lora.pt:+2", "lora.pt", 2.0),
        ("lora.pt:1e-1", "lora.pt", 0.1),
        ("lora.pt:0", "lora.pt", 0.0),
        ("C:\\loras\\my.pt", "C:\\loras\\my.pt", 1.0),
        ("C:\\loras\\my.pt:0.5", "C:\\loras\\my.pt", 0.5),
        ("C:/loras/my.pt:-0.5", "C:/loras/my.pt", -0.5),
        ("a:0.5", "a:0.5", 1.0),
        ("a:0.5:2", "a:0.5", 2.0),
        ("v=2.pt", "v=2.pt", 1.0),
        ("v=2.pt:0.25", "v=2.pt", 0.25),
    ],
)
def test_a_strength_is_what_follows_the_name_of_a_file(
    monkeypatch: pytest.MonkeyPatch, text: str, file: str, strength: float
) -> None:
    monkeypatch.setattr(Path, "is_file", lambda self: str(self) == str(Path(file)))
    assert read_lora_option(text) == (Path(file), strength)


@pytest.mark.parametrize("text", ["lora.pt:", "lora.pt:much", "lora.pt:nan", "lora.pt:inf", "lora.pt:0,8", "lora.pt:1e99999",
                                  "gone.pt", "gone.pt:0.5", "", ":0.5"])  # fmt: skip
def test_a_strength_that_is_no_number_and_a_file_that_is_not_there_are_refused(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(Path, "is_file", lambda self: str(self) == "lora.pt")
    with pytest.raises(T2VError, match=r"no such file|is no number"):
        read_lora_option(text)


def test_a_unet_takes_whole_changes_as_its_state_dict_does(tmp_path: Path) -> None:
    save_file(as_file(whole_changes(), "native", "diffusion_model."), tmp_path / "whole.safetensors")
    unet = UNet3D(SMALL)
    unet.load_state_dict(unet_weights())
    weights = copies()
    for target in (unet, weights):
        apply_loras(target, [(tmp_path / "whole.safetensors", 0.3)])
    assert all(torch.equal(weight, weights[name]) for name, weight in unet.state_dict().items())


@pytest.mark.slow
def test_generate_adds_a_lora_at_its_strength(tmp_path: Path) -> None:
    name = "middle_block.1.transformer_blocks.0.attn1.to_out.0"
    change = torch.randn(load_unet(BUILT_IN_FOLDER).state_dict()[f"{name}.weight"].shape)
    save_file({f"diffusion_model.{name}.diff": change}, tmp_path / "motion.safetensors")

    def video(*loras: str) -> np.ndarray:
        options = [part for lora in loras for part in ("--lora", lora)]
        output = str(tmp_path / "video.mkv")
        assert main(["generate", "a red circle", "--frames", "2", "--steps", "2", "-o", output, *options]) == 0
        return np.stack(list(VideoReader(output)))

    file = str(tmp_path / "motion.safetensors")
    plain = video()
    assert np.array_equal(video(f"{file}:0"), plain)
    there_and_back = video(f"{file}:0.5", f"{file}:-0.5").astype(int)
    assert np.abs(there_and_back - plain).max() <= 1
    assert not np.array_equal(video(file), plain)
    assert main(["generate", "a", "--lora", f"{file}:much", "-o", str(tmp_path / "no.mkv")]) == 2
