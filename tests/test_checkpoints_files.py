"""Files and folders of every kind are opened, and give the same weights."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from t2v_models import loading
from t2v_models.__main__ import main
from t2v_models.checkpoints import inspect, load_state_dict, load_unet, open_checkpoint
from t2v_models.checkpoints.convert import convert, save_unet
from t2v_models.errors import T2VError
from t2v_models.loading import BUILT_IN
from t2v_models.unet import UNet3D, UNetConfig

from .small_models import SMALL, all_in_one, diffusers_folder, in_layout, text_weights, unet_weights, vae_weights


def same(ours: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], dtype: torch.dtype | None = None) -> bool:
    return set(ours) == set(wanted) and all(torch.equal(ours[n], wanted[n].to(dtype or ours[n].dtype)) for n in wanted)


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
def test_the_type_of_the_file_stays_unless_another_is_asked_for(tmp_path: Path, dtype: torch.dtype, form: str) -> None:
    path = tmp_path / "model.pth"
    tensors = {name: tensor.to(dtype) for name, tensor in in_layout("modelscope").items()}
    save_file(tensors, path) if form == "safetensors" else torch.save(tensors, path)
    assert {p.dtype for p in load_unet(path).parameters()} == {dtype}
    assert {p.dtype for p in load_unet(path, dtype=torch.float32).parameters()} == {torch.float32}
    assert inspect(path).dtype == {2: "fp16", 4: "fp32", 8: "fp64"}[dtype.itemsize] or dtype == torch.bfloat16


@pytest.mark.parametrize("form", ["safetensors", "zip"])
def test_float8_weights_load_as_bfloat16_which_holds_them_exactly(tmp_path: Path, form: str) -> None:
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


def test_one_file_with_all_parts(tmp_path: Path) -> None:
    torch.save({"state_dict": all_in_one(), "global_step": 3}, tmp_path / "model.ckpt")
    checkpoint = open_checkpoint(tmp_path / "model.ckpt")
    assert same(checkpoint.unet(), unet_weights())
    assert same(checkpoint.vae(), vae_weights())
    assert same(checkpoint.text_encoder(), text_weights())


def test_the_image_parts_of_a_model_travel_along(tmp_path: Path) -> None:
    tensors = all_in_one(dataclasses.replace(SMALL, image_attention=True))
    image = {
        "embedder.model.visual.conv1.weight": torch.randn(8, 3, 2, 2),
        "image_proj_model.latents": torch.randn(1, 4, 8),
    }
    torch.save({"state_dict": tensors | image}, tmp_path / "model.ckpt")
    convert(tmp_path / "model.ckpt", tmp_path / "folder", "diffusers")
    convert(tmp_path / "folder", tmp_path / "back.safetensors", "videocrafter")
    back = load_state_dict(tmp_path / "back.safetensors")
    unused = {"cond_stage_model.model.text_projection", "cond_stage_model.model.logit_scale"}
    assert set(back) == set(tensors | image)
    assert all(torch.equal(back[name], tensor) for name, tensor in (tensors | image).items() if name not in unused)
    with pytest.raises(T2VError, match="image conditioning"):
        convert(tmp_path / "folder", tmp_path / "ms", "modelscope")


@pytest.mark.parametrize("order", ["VQGAN_autoencoder.pth", "z.pth"])
def test_modelscopes_vae_may_be_the_whole_of_stable_diffusion(tmp_path: Path, order: str) -> None:
    """As published: its other parts stand back, wherever the file comes in the folder."""
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


def test_a_config_json_among_files_is_that_of_its_own_part(tmp_path: Path) -> None:
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


def test_the_whole_clip_gives_its_text_encoder_and_its_eye_is_left_out(tmp_path: Path) -> None:
    source = tmp_path / "source"
    convert(diffusers_folder(tmp_path / "first"), source, "modelscope")
    clip = torch.load(source / "open_clip_pytorch_model.bin", weights_only=True)
    torch.save(clip | {"visual.conv1.weight": torch.randn(8, 3, 2, 2)}, source / "open_clip_pytorch_model.bin")
    for layout in ("modelscope", "diffusers", "videocrafter"):
        made = convert(source, tmp_path / layout, layout)
        assert not any("visual" in name for path in made if path.suffix != ".json" for name in load_state_dict(path))


def test_what_a_layout_cannot_say_of_the_noise_schedule_is_not_lost(tmp_path: Path) -> None:
    source = diffusers_folder(tmp_path / "source")
    (source / "scheduler").mkdir()
    config = {"prediction_type": "v_prediction", "beta_start": 0.00085, "beta_end": 0.012}
    (source / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    for layout, target in (("modelscope", "ms"), ("videocrafter", "vc.ckpt"), ("diffusers", "unet.safetensors")):
        with pytest.raises(
            T2VError, match=r"its prediction is v_prediction.* choose the layout diffusers, and a folder"
        ):
            convert(source, tmp_path / target, layout)
    convert(source, tmp_path / "folder", "diffusers")
    assert open_checkpoint(tmp_path / "folder").family.prediction == "v_prediction"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("base", [0.3, 0.7])
def test_the_scale_of_the_signal_survives_half_precision(tmp_path: Path, dtype: torch.dtype, base: float) -> None:
    scale = {"scale_arr": torch.cat([torch.linspace(1, base, 400), torch.full((1000,), base)])}
    torch.save({"state_dict": all_in_one() | scale}, tmp_path / "model.ckpt")
    convert(tmp_path / "model.ckpt", tmp_path / "half.ckpt", "videocrafter", dtype=dtype)
    assert load_state_dict(tmp_path / "half.ckpt")["state_dict.scale_arr"].dtype == torch.float32
    torch.save({"state_dict": all_in_one() | {"scale_arr": scale["scale_arr"].to(dtype)}}, tmp_path / "repack.ckpt")
    for name in ("half.ckpt", "repack.ckpt"):
        assert open_checkpoint(tmp_path / name).family.scale_base == base


def test_dynamicrafters_name_for_the_frame_rates_embedding_is_known(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("layout", ["modelscope", "videocrafter", "diffusers"])
def test_conversion_and_back_is_exact(tmp_path: Path, layout: str) -> None:
    source = diffusers_folder(tmp_path / "source")
    seen = []
    convert(source, tmp_path / "there", layout, progress=lambda done, total: seen.append((done, total)))
    convert(tmp_path / "there", tmp_path / "back", "diffusers")
    assert seen[-1][0] == seen[-1][1]
    for part in ("unet", "vae"):
        name = f"{part}/diffusion_pytorch_model.safetensors"
        assert same(load_state_dict(tmp_path / "back" / name), load_state_dict(source / name))
    assert inspect(tmp_path / "back").config == inspect(source).config


def test_what_we_write_for_pytorch_loads_in_pytorch(tmp_path: Path) -> None:
    source = diffusers_folder(tmp_path / "source")
    convert(source, tmp_path / "model.ckpt", "videocrafter", dtype=torch.float16)
    loaded = torch.load(tmp_path / "model.ckpt", weights_only=True)["state_dict"]
    wanted = in_layout("videocrafter", prefix="model.diffusion_model.")
    assert all(torch.equal(loaded[name], tensor.half()) for name, tensor in wanted.items())
    mapped = torch.load(tmp_path / "model.ckpt", weights_only=True, mmap=True)["state_dict"]
    assert all(torch.equal(mapped[name], loaded[name]) for name in loaded)


@pytest.mark.slow
def test_diffusers_computes_with_what_we_write(tmp_path: Path) -> None:
    from diffusers import UNet3DConditionModel

    save_file(in_layout("modelscope"), tmp_path / "model.safetensors")
    convert(tmp_path / "model.safetensors", tmp_path / "folder", "diffusers")
    theirs = UNet3DConditionModel.from_pretrained(tmp_path / "folder" / "unet").eval()
    ours = load_unet(tmp_path / "model.safetensors")
    x, context = torch.randn(1, 4, 3, 8, 8), torch.randn(1, 5, 64)
    with torch.no_grad():
        wanted = theirs(x, 7, context).sample
        assert (ours(x, torch.tensor([7]), context) - wanted).abs().max() <= 1e-4 * wanted.abs().max().clamp(min=1)


def test_what_a_killed_conversion_left_does_not_come_into_the_next(tmp_path: Path) -> None:
    save_file(in_layout("modelscope"), tmp_path / "model.safetensors")
    left = tmp_path / ".out.partial" / "model.ckpt"
    left.parent.mkdir()
    left.write_bytes(b"half of it")
    written = convert(tmp_path / "model.safetensors", tmp_path / "out", "diffusers")
    assert {path for path in (tmp_path / "out").rglob("*") if path.is_file()} == set(written)
    assert not left.parent.exists()


def test_a_conversion_never_overwrites_and_leaves_nothing_when_it_fails(tmp_path: Path) -> None:
    save_file(in_layout("modelscope"), tmp_path / "model.safetensors")
    with pytest.raises(T2VError, match="exists already"):
        convert(tmp_path / "model.safetensors", tmp_path / "model.safetensors", "diffusers")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(tmp_path / "model.safetensors", tmp_path / "out", "diffusers", progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_numbers_beyond_half_precision_are_not_made_infinite(tmp_path: Path) -> None:
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


def test_the_head_size_of_an_unusual_model_is_asked_for_where_shapes_do_not_tell(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, channels=(32, 96), head_dim=4, init_attention=False)
    tensors = {n: torch.zeros(t.shape) for n, t in UNet3D(config, device="meta").state_dict().items()}
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(T2VError, match=r"config\.json.*attention_head_dim"):
        load_unet(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"attention_head_dim": 4}))
    assert load_unet(tmp_path / "model.safetensors").config.head_dim == 4


@pytest.mark.parametrize("family", ["vgen", {"family": "vgen", "name": "vgen", "pace": ["slowly", "fast"]}])
def test_a_model_that_the_host_saved_tells_its_head_size_and_family(tmp_path: Path, family: str | dict) -> None:
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
    assert (checkpoint.family.pace is not None) == isinstance(family, dict)


def test_loaded_weights_can_be_trained_without_touching_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(in_layout("modelscope"), path)
    before = path.read_bytes()
    unet = load_unet(path)
    unet.out[2].bias.add_(1)
    assert torch.equal(unet.out[2].bias, unet_weights()["out.2.bias"] + 1)
    assert path.read_bytes() == before


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
def test_what_could_not_be_read_again_is_not_written(tmp_path, layout):
    with pytest.raises(T2VError, match=r"groups of its normalisations .* choose the layout diffusers, and a folder"):
        convert(BUILT_IN, tmp_path / "model.ckpt", layout)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("layout", ["diffusers", "modelscope", "videocrafter"])
def test_numbers_that_no_shape_tells_are_not_lost_in_a_single_file(tmp_path, layout):
    source = diffusers_folder(tmp_path / "source")
    path = source / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"norm_eps": 1e-6}))
    with pytest.raises(T2VError, match=r"norm_eps is 1e-06.* choose the layout diffusers, and a folder"):
        convert(source, tmp_path / "model.safetensors", layout)
    convert(source, tmp_path / "folder", "diffusers")
    assert open_checkpoint(tmp_path / "folder").config.norm_eps == 1e-6


@pytest.mark.parametrize("damage", ["missing", "vocab.json", "merges.txt", "broken"])
def test_a_model_without_a_whole_tokenizer_is_refused_in_a_sentence(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(loading, "CLIP", str(tmp_path / "nowhere"))
    folder = tmp_path / "tokenizer"
    shutil.copytree(BUILT_IN / "tokenizer", folder)
    if damage == "missing":
        folder = None
    elif damage == "broken":
        (folder / "vocab.json").write_text("{")
    else:
        (folder / damage).unlink()
    with pytest.raises(T2VError, match=r"tokenizer.*vocab\.json and merges\.txt"):
        loading.load_tokenizer(folder)


def test_texts_of_a_model_without_a_tokenizer_are_filled_up_as_its_encoder_learned_it(monkeypatch):
    monkeypatch.setattr(loading, "CLIP", str(BUILT_IN / "tokenizer"))  # as CLIP's, it fills up with the end
    clip, open_clip = (loading.load_tokenizer(None, width) for width in (768, 1024))
    assert clip.pad_token_id == clip.eos_token_id
    assert (open_clip.pad_token_id, len(open_clip)) == (0, len(clip))


def test_a_tokenizer_of_two_files_reads_clips_length_of_text(tmp_path):
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(BUILT_IN / "tokenizer" / name, tmp_path / name)
    assert loading.load_tokenizer(tmp_path).model_max_length == 77
