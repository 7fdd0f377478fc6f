"""Files and folders of every kind are opened, and give equal weights."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from t2v_models import loading
from t2v_models.builtin_model import BUILT_IN_FOLDER
from t2v_models.checkpoints import inspect, load_unet, open_checkpoint
from t2v_models.checkpoints.convert import convert
from t2v_models.errors import T2VError
from t2v_models.unet import UNet3D

from .support.checkpoints import (
    SMALL,
    all_in_one,
    diffusers_folder,
    in_layout,
    same,
    text_weights,
    unet_weights,
    vae_weights,
)


@pytest.mark.parametrize("layout", ["diffusers", "modelscope", "videocrafter", "native"])
@pytest.mark.parametrize(
    ("prefix", "form"),
    [("", "safetensors"), ("model.diffusion_model.", "zip"), ("module.", "legacy"), ("", "wrapped")],
)
def test_a_single_file_of_any_form_loads(tmp_path: Path, layout: str, prefix: str, form: str) -> None:
    path = tmp_path / "model.any"
    tensors = in_layout(layout, prefix=prefix)
    if form == "safetensors":
        save_file(tensors, path)
    else:
        value = {"state_dict": tensors, "step": 7, "note": {"a": [1, 2.5, None, "x"]}} if form == "wrapped" else tensors
        torch.save(value, path, _use_new_zipfile_serialization=form != "legacy")
    unet = load_unet(path)
    assert unet.config == SMALL
    assert same(unet.state_dict(), unet_weights())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("form", ["safetensors", "zip"])
def test_weights_keep_the_files_type_unless_another_is_given(tmp_path: Path, dtype: torch.dtype, form: str) -> None:
    path = tmp_path / "model.pth"
    tensors = {name: tensor.to(dtype) for name, tensor in in_layout("modelscope").items()}
    save_file(tensors, path) if form == "safetensors" else torch.save(tensors, path)
    assert {p.dtype for p in load_unet(path).parameters()} == {dtype}
    assert {p.dtype for p in load_unet(path, dtype=torch.float32).parameters()} == {torch.float32}
    assert inspect(path).dtype == {2: "fp16", 4: "fp32", 8: "fp64"}[dtype.itemsize] or dtype == torch.bfloat16


@pytest.mark.parametrize("form", ["safetensors", "zip"])
def test_float8_weights_load_exactly_as_bfloat16(tmp_path: Path, form: str) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {n: t.to(torch.float8_e4m3fn) for n, t in in_layout("videocrafter").items()}
    save_file(tensors, path) if form == "safetensors" else torch.save(tensors, path)
    wanted = {n: t.to(torch.float8_e4m3fn).to(torch.bfloat16) for n, t in unet_weights().items()}
    assert same(load_unet(path).state_dict(), wanted)
    assert inspect(path).dtype == "fp8_e4m3fn"


def test_scaled_float8_weights_are_multiplied_by_their_scales(tmp_path: Path) -> None:
    tensors = {}
    for name, tensor in in_layout("modelscope").items():
        if name.endswith(".weight") and tensor.ndim == 2:
            scale = tensor.abs().max() / 448
            tensors[name] = (tensor / scale).to(torch.float8_e4m3fn)
            tensors[name.removesuffix("weight") + "scale_weight"] = scale
        else:
            tensors[name] = tensor
    save_file(tensors, tmp_path / "model.safetensors")
    loaded = load_unet(tmp_path / "model.safetensors", dtype=torch.float32).state_dict()
    for name, wanted in unet_weights().items():
        assert torch.allclose(loaded[name], wanted, rtol=0.07, atol=wanted.abs().max().item() / 300)


@pytest.mark.parametrize(("variant", "shards"), [("", 1), (".fp16", 1), ("", 3)])
def test_a_diffusers_folder_loads_whole_and_by_its_parts(tmp_path: Path, variant: str, shards: int) -> None:
    folder = diffusers_folder(tmp_path / "model", variant=variant, shards=shards)
    checkpoint = open_checkpoint(folder)
    dtype = torch.float16 if variant else torch.float32
    assert same(checkpoint.unet(), unet_weights(), dtype)
    assert same(checkpoint.vae(), vae_weights(), dtype)
    assert same(checkpoint.text_encoder(), text_weights(), dtype)
    assert same(load_unet(folder / "unet").state_dict(), unet_weights(), dtype)
    assert set(checkpoint.info.parts) == {"unet", "vae", "text_encoder"}


def test_full_precision_safetensors_are_preferred_where_a_folder_has_several_forms(tmp_path: Path) -> None:
    folder = diffusers_folder(tmp_path, variant=".fp16")
    diffusers_folder(tmp_path)
    torch.save({}, folder / "unet" / "diffusion_pytorch_model.bin")
    assert inspect(folder).dtype == "fp32"


def test_modelscopes_own_folder_loads_from_files_of_any_name(tmp_path: Path) -> None:
    source = diffusers_folder(tmp_path / "source")
    convert(source, tmp_path / "ms", "modelscope")
    for i, file in enumerate(sorted((tmp_path / "ms").iterdir())):
        file.rename(tmp_path / "ms" / f"{i}.bin")
    checkpoint = open_checkpoint(tmp_path / "ms")
    assert same(checkpoint.unet(), unet_weights())
    assert same(checkpoint.vae(), vae_weights())
    assert same(checkpoint.text_encoder(), text_weights())


def test_a_file_with_all_parts_loads(tmp_path: Path) -> None:
    torch.save({"state_dict": all_in_one(), "global_step": 3}, tmp_path / "model.ckpt")
    checkpoint = open_checkpoint(tmp_path / "model.ckpt")
    assert same(checkpoint.unet(), unet_weights())
    assert same(checkpoint.vae(), vae_weights())
    assert same(checkpoint.text_encoder(), text_weights())


@pytest.mark.parametrize("order", ["VQGAN_autoencoder.pth", "z.pth"])
def test_modelscopes_vae_may_be_the_whole_of_stable_diffusion(tmp_path: Path, order: str) -> None:
    """As published: its other parts are left out, wherever the file stands in the folder."""
    image = dataclasses.replace(SMALL, temporal_attention=False, temporal_convolution=False, init_attention=False)
    whole = {name.replace(".3.", ".2."): tensor for name, tensor in all_in_one(image).items()}
    whole |= {name: 2 * tensor for name, tensor in whole.items() if name.startswith("cond_stage_model.")}
    torch.save({"state_dict": whole, "global_step": 875_000}, tmp_path / order)
    with pytest.raises(T2VError, match="a UNet for images"):
        open_checkpoint(tmp_path)
    convert(diffusers_folder(tmp_path / "source"), tmp_path / "ms", "modelscope")
    for name in ("text2video_pytorch_model.pth", "open_clip_pytorch_model.bin"):
        (tmp_path / "ms" / name).rename(tmp_path / name)
    checkpoint = open_checkpoint(tmp_path)
    assert same(checkpoint.unet(), unet_weights())
    assert same(checkpoint.vae(), vae_weights())
    assert same(checkpoint.text_encoder(), text_weights())
    (tmp_path / "open_clip_pytorch_model.bin").unlink()
    assert open_checkpoint(tmp_path).text_encoder() is not None


def test_a_config_json_among_files_belongs_to_its_own_part(tmp_path: Path) -> None:
    convert(diffusers_folder(tmp_path / "source"), tmp_path / "ms", "modelscope")
    plain = open_checkpoint(tmp_path / "ms")
    vae = json.loads((tmp_path / "source" / "vae" / "config.json").read_text()) | {"sample_size": 768}
    unet = json.loads((tmp_path / "source" / "unet" / "config.json").read_text())
    for config in (vae, unet | {"down_block_types": ["CrossAttnDownBlock3D"]}):
        (tmp_path / "ms" / "config.json").write_text(json.dumps(config))
        checkpoint = open_checkpoint(tmp_path / "ms")
        assert checkpoint.info.defaults == plain.info.defaults
        assert checkpoint.config == plain.config
        assert checkpoint.vae_config()["down_block_types"] == plain.vae_config()["down_block_types"]
        assert checkpoint.text_encoder_config() == plain.text_encoder_config()
        alone = open_checkpoint(tmp_path / "ms" / "text2video_pytorch_model.pth")
        assert alone.info.defaults == plain.info.defaults


def test_dynamicrafters_name_of_the_frame_rates_embedding_is_recognised(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, fps_embedding=True)
    tensors = in_layout("videocrafter", config, "model.diffusion_model.")
    torch.save(
        {n.replace("fps_embedding", "framestride_embed"): t for n, t in tensors.items()}, tmp_path / "model.ckpt"
    )
    unet = load_unet(tmp_path / "model.ckpt")
    assert unet.config.fps_embedding
    assert same(unet.state_dict(), unet_weights(config))


def test_shards_of_a_variant_load(tmp_path: Path) -> None:
    folder = diffusers_folder(tmp_path, variant=".fp16", shards=3)
    assert (folder / "unet" / "diffusion_pytorch_model.safetensors.index.fp16.json").exists()
    assert same(open_checkpoint(folder).unet(), unet_weights(), torch.float16)
    diffusers_folder(tmp_path, shards=2)  # full precision beside it is preferred
    assert same(open_checkpoint(folder).unet(), unet_weights())


def test_an_unusual_model_without_its_head_size_is_refused_and_loads_with_it(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, channels=(32, 96), head_dim=4, init_attention=False)
    tensors = {n: torch.zeros(t.shape) for n, t in UNet3D(config, device="meta").state_dict().items()}
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(T2VError, match=r"config\.json.*attention_head_dim"):
        load_unet(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"attention_head_dim": 4}))
    assert load_unet(tmp_path / "model.safetensors").config.head_dim == 4


@pytest.mark.parametrize("whole_folder", [True, False])
def test_a_broken_config_json_is_named_wherever_its_model_is_opened(tmp_path: Path, whole_folder: bool) -> None:
    save_file(in_layout("modelscope"), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{broken")
    with pytest.raises(T2VError, match=r"config\.json is no readable JSON"):
        open_checkpoint(tmp_path if whole_folder else tmp_path / "model.safetensors")


@pytest.mark.parametrize("family", ["vgen", {"family": "vgen", "name": "vgen", "pace": ["slowly", "fast"]}])
def test_a_model_that_the_host_saved_keeps_its_head_size_and_family(tmp_path: Path, family: str | dict) -> None:
    config = dataclasses.replace(SMALL, channels=(32, 96), head_dim=4, init_attention=False)
    tensors = {n: torch.zeros(t.shape) for n, t in UNet3D(config, device="meta").state_dict().items()}
    tensors = {f"model.diffusion_model.{n}": tensor for n, tensor in tensors.items()}
    values = {"unet": dataclasses.asdict(config), "scheduler": {"prediction_type": "v_prediction"}, "family": family}
    tensors["t2v_config"] = torch.tensor(list(json.dumps(values).encode()), dtype=torch.uint8)
    save_file(tensors, tmp_path / "model.safetensors")
    checkpoint = open_checkpoint(tmp_path / "model.safetensors")
    assert checkpoint.config == config
    assert checkpoint.scheduler_config() == {"prediction_type": "v_prediction"}
    assert checkpoint.family.name == "vgen"
    assert (checkpoint.family.speed_words is not None) == isinstance(family, dict)


def test_loaded_weights_can_be_trained_without_touching_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(in_layout("modelscope"), path)
    before = path.read_bytes()
    unet = load_unet(path)
    unet.out[2].bias.add_(1)
    assert torch.equal(unet.out[2].bias, unet_weights()["out.2.bias"] + 1)
    assert path.read_bytes() == before


def test_a_text_encoder_of_another_model_is_refused_with_one_sentence(tmp_path):
    from transformers import CLIPTextConfig, CLIPTextModel

    shutil.copytree(BUILT_IN_FOLDER, tmp_path / "model")
    config = CLIPTextConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, vocab_size=827
    )
    CLIPTextModel(config).save_pretrained(tmp_path / "model" / "text_encoder")
    with pytest.raises(T2VError, match=r"64 wide, and .* wants one of 128"):
        loading.load_pipeline(tmp_path / "model")


@pytest.mark.parametrize("damage", ["missing", "vocab.json", "merges.txt", "broken"])
def test_a_model_with_an_incomplete_tokenizer_is_refused_with_one_sentence(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(loading, "CLIP", str(tmp_path / "nowhere"))
    folder = tmp_path / "tokenizer"
    shutil.copytree(BUILT_IN_FOLDER / "tokenizer", folder)
    if damage == "missing":
        folder = None
    elif damage == "broken":
        (folder / "vocab.json").write_text("{")
    else:
        (folder / damage).unlink()
    with pytest.raises(T2VError, match=r"tokenizer.*vocab\.json and merges\.txt"):
        loading.load_tokenizer(folder)


def test_texts_of_a_model_without_a_tokenizer_are_padded_as_in_its_training(monkeypatch):
    monkeypatch.setattr(loading, "CLIP", str(BUILT_IN_FOLDER / "tokenizer"))  # as CLIP's, it fills up with the end
    clip, open_clip = (loading.load_tokenizer(None, width) for width in (768, 1024))
    assert clip.pad_token_id == clip.eos_token_id
    assert (open_clip.pad_token_id, len(open_clip)) == (0, len(clip))


def test_a_tokenizer_of_two_files_has_clips_length_and_padding(tmp_path):
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(BUILT_IN_FOLDER / "tokenizer" / name, tmp_path / name)
    clip, open_clip = (loading.load_tokenizer(tmp_path, width) for width in (768, 1024))
    assert clip.model_max_length == 77
    assert (clip.pad_token_id, open_clip.pad_token_id) == (clip.eos_token_id, 0)
    specified = loading.load_tokenizer(BUILT_IN_FOLDER / "tokenizer", 1024)
    assert specified.pad_token_id == specified.eos_token_id


def test_a_tokenizer_beside_the_weights_is_found_and_kept_by_a_conversion(tmp_path):
    path = tmp_path / "files" / "model.safetensors"
    path.parent.mkdir()
    save_file(in_layout("modelscope"), path)
    assert open_checkpoint(path).tokenizer_path is None
    shutil.copytree(BUILT_IN_FOLDER / "tokenizer", path.parent / "tokenizer")
    for given in (path, path.parent):
        assert open_checkpoint(given).tokenizer_path == path.parent / "tokenizer"
    for layout in ("diffusers", "modelscope"):
        convert(path.parent, tmp_path / layout, layout=layout)
        assert (tmp_path / layout / "tokenizer" / "vocab.json").is_file()
