"""Conversions give equal weights in another layout or an error, and leave no unfinished file."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from t2v_models.__main__ import main
from t2v_models.atomic_output import PREFIX
from t2v_models.builtin_model import BUILT_IN_FOLDER
from t2v_models.checkpoints import inspect, load_state_dict, load_unet, open_checkpoint
from t2v_models.checkpoints.convert import convert, save_unet
from t2v_models.checkpoints.tensors import LazyTensor
from t2v_models.checkpoints.writing import _STORAGES, _integer, write_pickle
from t2v_models.errors import T2VError
from t2v_models.unet import UNet3D, UNetConfig

from .support.checkpoints import (
    SMALL,
    all_in_one,
    diffusers_folder,
    image_encoder_weights,
    image_parts,
    in_layout,
    same,
)


def test_a_conversion_keeps_the_image_parts(tmp_path: Path) -> None:
    from transformers import CLIPVisionModelWithProjection

    tensors = all_in_one(dataclasses.replace(SMALL, image_attention=True))
    image = image_parts()
    torch.save({"state_dict": tensors | image}, tmp_path / "model.ckpt")
    convert(tmp_path / "model.ckpt", tmp_path / "folder", "diffusers")
    for kind in ("image_encoder", "image_projector"):
        assert kind in inspect(tmp_path / "folder").parts
    encoder = CLIPVisionModelWithProjection.from_pretrained(tmp_path / "folder" / "image_encoder")
    assert same({n: t for n, t in encoder.state_dict().items() if "position_ids" not in n}, image_encoder_weights())
    convert(tmp_path / "folder", tmp_path / "back.safetensors", "videocrafter")
    back = load_state_dict(tmp_path / "back.safetensors")
    unused = {"cond_stage_model.model.text_projection", "cond_stage_model.model.logit_scale"}
    assert set(back) == set(tensors | image)
    assert all(torch.equal(back[name], tensor) for name, tensor in (tensors | image).items() if name not in unused)
    with pytest.raises(T2VError, match="image conditioning"):
        convert(tmp_path / "folder", tmp_path / "ms", "modelscope")


@pytest.mark.slow
def test_i2vgen_in_one_folder_of_vgens_files_becomes_a_folder_that_diffusers_loads_and_back(tmp_path: Path) -> None:
    from diffusers import I2VGenXLPipeline

    config = dataclasses.replace(SMALL, in_channels=8, fps_embedding=True, image_branches=True)
    tensors = all_in_one(config)
    source = tmp_path / "source"
    source.mkdir()
    torch.save({"state_dict": in_layout("modelscope", config)}, source / "i2vgen_xl_00854500.pth")
    clip, vision = (
        {name.removeprefix(prefix): tensor for name, tensor in every.items() if name.startswith(prefix)}
        for prefix, every in (("cond_stage_model.model.", tensors), ("embedder.model.", image_parts()))
    )
    torch.save(clip | vision, source / "open_clip_pytorch_model.bin")
    autoencoder = {name: tensor for name, tensor in tensors.items() if name.startswith("first_stage_model.")}
    torch.save({"state_dict": autoencoder}, source / "v2-1_512-ema-pruned.ckpt")

    convert(source, tmp_path / "folder", "diffusers")
    pipeline = I2VGenXLPipeline.from_pretrained(tmp_path / "folder", tokenizer=None)
    assert same({n: t for n, t in pipeline.image_encoder.state_dict().items()}, image_encoder_weights())
    convert(tmp_path / "folder", tmp_path / "back", "modelscope")
    parts, wanted = open_checkpoint(tmp_path / "back"), open_checkpoint(source)
    for part in ("unet", "vae", "text_encoder", "image_encoder"):
        assert same(getattr(parts, part)(), getattr(wanted, part)())


def test_a_conversion_keeps_the_text_encoder_of_a_whole_clip_and_drops_its_image_encoder(tmp_path: Path) -> None:
    source = tmp_path / "source"
    convert(diffusers_folder(tmp_path / "first"), source, "modelscope")
    clip = torch.load(source / "open_clip_pytorch_model.bin", weights_only=True)
    torch.save(clip | {"visual.conv1.weight": torch.randn(8, 3, 2, 2)}, source / "open_clip_pytorch_model.bin")
    for layout in ("modelscope", "diffusers", "videocrafter"):
        made = convert(source, tmp_path / layout, layout)
        assert not any("visual" in name for path in made if path.suffix != ".json" for name in load_state_dict(path))


def test_a_conversion_refuses_to_lose_the_noise_schedule(tmp_path: Path) -> None:
    source = diffusers_folder(tmp_path / "source")
    (source / "scheduler").mkdir()
    config = {"prediction_type": "v_prediction", "beta_start": 0.00085, "beta_end": 0.012}
    (source / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    for layout, target in (("modelscope", "ms"), ("videocrafter", "vc.ckpt"), ("diffusers", "unet.safetensors")):
        with pytest.raises(
            T2VError, match=r"its prediction_type is v_prediction.* choose the layout diffusers, and a folder"
        ):
            convert(source, tmp_path / target, layout)
    convert(source, tmp_path / "folder", "diffusers")
    assert open_checkpoint(tmp_path / "folder").family.prediction_type == "v_prediction"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("base", [0.3, 0.7])
def test_a_conversion_to_half_precision_keeps_the_scale_of_the_signal(
    tmp_path: Path, dtype: torch.dtype, base: float
) -> None:
    scale = {"scale_arr": torch.cat([torch.linspace(1, base, 400), torch.full((1000,), base)])}
    torch.save({"state_dict": all_in_one() | scale}, tmp_path / "model.ckpt")
    convert(tmp_path / "model.ckpt", tmp_path / "half.ckpt", "videocrafter", dtype=dtype)
    assert load_state_dict(tmp_path / "half.ckpt")["state_dict.scale_arr"].dtype == torch.float32
    torch.save({"state_dict": all_in_one() | {"scale_arr": scale["scale_arr"].to(dtype)}}, tmp_path / "repack.ckpt")
    for name in ("half.ckpt", "repack.ckpt"):
        assert open_checkpoint(tmp_path / name).family.scale_base == base


@pytest.mark.parametrize("layout", ["modelscope", "videocrafter", "diffusers"])
def test_a_conversion_there_and_back_is_exact(tmp_path: Path, layout: str) -> None:
    source = diffusers_folder(tmp_path / "source")
    seen = []
    convert(source, tmp_path / "there", layout, progress=lambda done, total: seen.append((done, total)))
    convert(tmp_path / "there", tmp_path / "back", "diffusers")
    assert seen[-1][0] == seen[-1][1]
    for part in ("unet", "vae"):
        name = f"{part}/diffusion_pytorch_model.safetensors"
        assert same(load_state_dict(tmp_path / "back" / name), load_state_dict(source / name))
    assert inspect(tmp_path / "back").config == inspect(source).config


def test_pytorch_loads_the_files_that_are_written_for_it(tmp_path: Path) -> None:
    source = diffusers_folder(tmp_path / "source")
    convert(source, tmp_path / "model.ckpt", "videocrafter", dtype=torch.float16)
    loaded = torch.load(tmp_path / "model.ckpt", weights_only=True)["state_dict"]
    wanted = in_layout("videocrafter", prefix="model.diffusion_model.")
    assert all(torch.equal(loaded[name], tensor.half()) for name, tensor in wanted.items())
    mapped = torch.load(tmp_path / "model.ckpt", weights_only=True, mmap=True)["state_dict"]
    assert all(torch.equal(mapped[name], loaded[name]) for name in loaded)


@pytest.mark.parametrize("wrapper", ["", "state_dict"])
def test_pytorch_reads_every_type_and_shape_that_is_written_for_it(tmp_path: Path, wrapper: str) -> None:
    tensors = {
        **{str(dtype): torch.arange(-6, 6).reshape(2, 3, 2).to(dtype) for dtype in _STORAGES},
        "a scalar": torch.tensor(0.1),
        "none": torch.zeros(0, 3),
        "h\u00e9 \u6a21\u578b": torch.tensor([float("nan"), -0.0]),
    }
    lazy = {name: LazyTensor.of(tensor) for name, tensor in tensors.items()}
    for count in (lazy, {}):
        write_pickle(tmp_path / "model.pth", count, lambda written: None, wrapper)
        for options in ({"weights_only": True}, {"weights_only": True, "mmap": True}, {"weights_only": False}):
            loaded = torch.load(tmp_path / "model.pth", **options)
            loaded = loaded[wrapper] if wrapper else loaded
            assert list(loaded) == list(count)
            for name, tensor in loaded.items():
                assert (tensor.dtype, tensor.shape) == (tensors[name].dtype, tensors[name].shape)
                assert torch.equal(*(each.reshape(-1).view(torch.uint8) for each in (tensor, tensors[name])))


def test_a_pickle_holds_numbers_of_any_size() -> None:
    for number in (0, 1, 255, 1 << 16, (1 << 31) - 1, 1 << 31, 1 << 40, (1 << 63) - 1):
        assert pickle.loads(b"\x80\x02" + _integer(number) + b".") == number


@pytest.mark.slow
def test_diffusers_computes_with_a_converted_folder(tmp_path: Path) -> None:
    from diffusers import UNet3DConditionModel

    save_file(in_layout("modelscope"), tmp_path / "model.safetensors")
    convert(tmp_path / "model.safetensors", tmp_path / "folder", "diffusers")
    theirs = UNet3DConditionModel.from_pretrained(tmp_path / "folder" / "unet").eval()
    ours = load_unet(tmp_path / "model.safetensors")
    x, context = torch.randn(1, 4, 3, 8, 8), torch.randn(1, 5, 64)
    with torch.no_grad():
        wanted = theirs(x, 7, context).sample
        assert (ours(x, torch.tensor([7]), context) - wanted).abs().max() <= 1e-4 * wanted.abs().max().clamp(min=1)


def test_the_next_conversion_removes_what_a_killed_one_has_left(tmp_path: Path) -> None:
    save_file(in_layout("modelscope"), tmp_path / "model.safetensors")
    left = tmp_path / f"{PREFIX}killed"
    left.mkdir()
    (left / "lock").write_bytes(b"")
    (left / "converted").write_bytes(b"half of it")
    written = convert(tmp_path / "model.safetensors", tmp_path / "out", "diffusers")
    assert {path for path in (tmp_path / "out").rglob("*") if path.is_file()} == set(written)
    assert not left.exists()


def test_a_conversion_never_overwrites_and_leaves_nothing_when_it_fails(tmp_path: Path) -> None:
    save_file(in_layout("modelscope"), tmp_path / "model.safetensors")
    with pytest.raises(T2VError, match="exists already"):
        convert(tmp_path / "model.safetensors", tmp_path / "model.safetensors", "diffusers")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(tmp_path / "model.safetensors", tmp_path / "out", "diffusers", progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_conversion_refuses_numbers_beyond_half_precision(tmp_path: Path) -> None:
    tensors = in_layout("modelscope")
    tensors["out.2.bias"] = torch.full((4,), 1e5)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(T2VError, match=r"conv_out\.bias.*bf16"):
        convert(tmp_path / "model.safetensors", tmp_path / "out", "diffusers", dtype=torch.float16)


def test_save_unet_writes_a_folder_that_loads(tmp_path: Path) -> None:
    config = UNetConfig(channels=(24, 48), attention_levels=(True, False), num_res_blocks=1, context_dim=64,
                        head_dim=12, norm_groups=8, init_attention=False,
                        fps_embedding=True, default_fps=7)  # fmt: skip
    unet = UNet3D(config)
    settings = {"frames": 9, "width": 80, "height": 72, "licence": "CC0", "title": "Toy"}
    save_unet(unet, tmp_path / "unet", t2v=settings)
    assert load_unet(tmp_path / "unet").config == config
    assert same(load_unet(tmp_path / "unet").state_dict(), unet.state_dict())
    info = inspect(tmp_path)
    assert (info.defaults.frames, info.defaults.width, info.defaults.height, info.licence) == (9, 80, 72, "CC0")


def test_the_command_line_inspects_and_converts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = diffusers_folder(tmp_path / "source")
    assert main(["inspect", str(source)]) == 0
    report = capsys.readouterr().out
    assert "diffusers" in report
    assert "vae" in report
    assert main(["inspect", str(source), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["channels"] == [32, 64]
    assert main(["convert", str(source), str(tmp_path / "a.ckpt"), "--layout", "videocrafter", "--dtype", "bf16"]) == 0
    assert inspect(tmp_path / "a.ckpt").dtype == "bf16"
    assert main(["convert", str(source), str(tmp_path / "a.ckpt"), "--layout", "videocrafter"]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("layout", ["diffusers", "modelscope", "videocrafter"])
def test_a_conversion_refuses_a_file_that_could_not_be_read_again(tmp_path, layout):
    with pytest.raises(T2VError, match=r"groups of its normalisations .* choose the layout diffusers, and a folder"):
        convert(BUILT_IN_FOLDER, tmp_path / "model.ckpt", layout)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("layout", ["diffusers", "modelscope", "videocrafter"])
def test_a_conversion_refuses_to_lose_numbers_that_do_not_follow_from_shapes(tmp_path, layout):
    source = diffusers_folder(tmp_path / "source")
    path = source / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"norm_eps": 1e-6}))
    with pytest.raises(T2VError, match=r"norm_eps is 1e-06.* choose the layout diffusers, and a folder"):
        convert(source, tmp_path / "model.safetensors", layout)
    convert(source, tmp_path / "folder", "diffusers")
    assert open_checkpoint(tmp_path / "folder").config.norm_eps == 1e-6
