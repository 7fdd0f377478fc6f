"""Every layout against the full-size manifests of the reference implementations, on the meta device."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from t2v_models.checkpoints import LAYOUTS, inspect, load_unet, open_checkpoint
from t2v_models.checkpoints.lora_lists import diffusers_order, videocrafter_order
from t2v_models.errors import T2VError
from t2v_models.unet import PRESETS, UNet3D, UNetConfig

from .support.manifests import manifests, on_meta

PUBLISHED = {
    "modelscope": ("modelscope", "modelscope", 1480),
    "diffusers": ("modelscope", "diffusers", 1480),
    "diffusers-turbo": ("t2v-turbo-ms", "diffusers", 1481),
    "videocrafter2": ("videocrafter2", "videocrafter", 1484),
    "videocrafter1-512": ("videocrafter1-512", "videocrafter", 1196),
    "videocrafter1-1024": ("videocrafter1-1024", "videocrafter", 1200),
    "videocrafter1-i2v": ("videocrafter1-i2v", "videocrafter", 1516),
    "dynamicrafter-256": ("dynamicrafter-256", "videocrafter", 1532),
    "dynamicrafter-512": ("dynamicrafter-512", "videocrafter", 1516),
    "tooncrafter": ("dynamicrafter-512", "videocrafter", 1516),
    "i2vgen-xl": ("i2vgen-xl", "diffusers", 1511),
    "t2v-turbo-vc2": ("t2v-turbo-vc2", "videocrafter", 1485),
    "t2v-turbo-v2": ("t2v-turbo-v2", "videocrafter", 1487),
}
"""Manifest -> the preset it must be recognised as, its layout, its number of tensors."""


def without_fps(config: UNetConfig) -> UNetConfig:
    return dataclasses.replace(config, default_fps=16)


@pytest.mark.parametrize(
    ("model", "prefix"),
    [
        *((model, "model.diffusion_model.") for model in PUBLISHED),
        *(("modelscope", prefix) for prefix in ("", "state_dict.module.", "unet.")),
    ],
)
def test_a_published_model_is_recognised_from_names_and_shapes_alone(model: str, prefix: str) -> None:
    preset, layout, count = PUBLISHED[model]
    checkpoint = open_checkpoint(on_meta(manifests()[model], prefix=prefix))
    assert len(manifests()[model]) == count
    assert checkpoint.info.layout == layout
    assert without_fps(checkpoint.config) == without_fps(PRESETS[preset])
    assert checkpoint.info.parameters == sum(p.numel() for p in UNet3D(PRESETS[preset], device="meta").parameters())


@pytest.mark.parametrize("model", PUBLISHED)
def test_every_layout_round_trips_exactly_through_the_canonical_names(model: str) -> None:
    preset, layout, _ = PUBLISHED[model]
    config, layout = PRESETS[preset], LAYOUTS[layout]
    theirs = on_meta(manifests()[model])
    ours = layout.to_canonical(theirs, config)
    wanted = {name: tuple(t.shape) for name, t in UNet3D(config, device="meta").state_dict().items()}
    assert {name: tuple(tensor.load().shape) for name, tensor in ours.items()} == wanted
    back = layout.from_canonical(ours, config)
    assert {name: tuple(tensor.load().shape) for name, tensor in back.items()} == manifests()[model]


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_model_can_be_written_in_every_layout_and_is_recognised_there(preset: str, layout: str) -> None:
    config = PRESETS[preset]
    shapes = LAYOUTS[layout].shapes(config)
    info = inspect(on_meta(shapes))
    assert info.layout == layout
    assert without_fps(info.config) == without_fps(config)


def test_tensors_keep_their_values_through_every_layout() -> None:
    config = UNetConfig(channels=(32, 64), attention_levels=(True, False), head_dim=8, context_dim=24,
                        fps_embedding=True, relative_position=4, image_attention=True, image_scale=True)  # fmt: skip
    unet = UNet3D(config)
    original = unet.state_dict()
    for layout in LAYOUTS.values():
        renamed = {n: t.reshape(layout.reshape(o, tuple(t.shape))) for (o, t), n in
                   zip(original.items(), layout.names(config).values(), strict=True)}  # fmt: skip
        loaded = load_unet(renamed)
        assert loaded.config == dataclasses.replace(config, default_fps=loaded.config.default_fps)
        assert all(torch.equal(tensor, original[name]) for name, tensor in loaded.state_dict().items())


def test_the_order_of_modules_is_that_of_the_references() -> None:
    for model, order in (
        ("t2v-turbo-vc2", videocrafter_order(PRESETS["t2v-turbo-vc2"])),
        ("diffusers-turbo", diffusers_order(PRESETS["t2v-turbo-ms"])),
    ):
        layout = LAYOUTS[PUBLISHED[model][1]]
        names = layout.names(PRESETS[PUBLISHED[model][0]])
        recorded = [(n, s) for n, s in manifests()[model].items() if n.endswith(".weight") and len(s) in (2, 4, 5)]
        assert [(names[name], shape) for name, shape in order] == recorded


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("input_blocks.4.0.in_layers.2.weight"), "input_blocks.4.0.in_layers.2.weight"),
        (lambda t: t.update({"input_blocks.4.0.extra.weight": t["out.2.weight"]}), "input_blocks.4.0.extra.weight"),
        (lambda t: t.update({"local_image_concat.0.weight": t["out.2.weight"]}), "local_image_concat"),
        (lambda t: t.update({"motion_encoder.weight": t["out.2.weight"]}), "motion_encoder"),
        (lambda t: t.update({"out.2.weight": t["input_blocks.0.0.weight"]}), "out.2.weight"),
    ],
)
def test_an_error_names_the_tensor_that_does_not_fit(change, said: str) -> None:
    tensors = on_meta(manifests()["modelscope"])
    change(tensors)
    with pytest.raises(T2VError, match=said):
        open_checkpoint(tensors)


def test_a_unet_for_images_is_refused() -> None:
    tensors = {n: t for n, t in on_meta(manifests()["videocrafter2"]).items()
               if "temopral" not in n and ".2.transformer" not in n and "init_attn" not in n}  # fmt: skip
    tensors = {n.replace("middle_block.3.", "middle_block.2."): t for n, t in tensors.items()
               if not n.startswith("middle_block.2.") and ".2.proj" not in n and ".2.norm" not in n}  # fmt: skip
    with pytest.raises(T2VError, match="images"):
        open_checkpoint(tensors)


@pytest.mark.slow
def test_parts_get_the_names_of_their_classes() -> None:
    shapes = manifests()
    tensors = on_meta(shapes["dynamicrafter-512"], prefix="model.diffusion_model.")
    tensors |= on_meta(shapes["vae"], prefix="first_stage_model.")
    text = {n: s for n, s in shapes["openclip"].items() if not n.startswith("visual.")}
    tensors |= on_meta(text, prefix="cond_stage_model.model.")
    image = {n: s for n, s in shapes["openclip"].items() if not n.startswith("transformer.")}
    tensors |= on_meta(image, prefix="embedder.model.")
    tensors |= on_meta({"latents": (1, 16, 1024), "layers.0.0.norm1.weight": (1024,)}, prefix="image_proj_model.")
    tensors |= on_meta({"betas": (1000,), "alphas_cumprod": (1000,), "embedder.mean": (3,)})
    checkpoint = open_checkpoint(tensors)
    assert set(checkpoint.info.parts) == {"unet", "vae", "text_encoder", "image_encoder", "image_projector"}

    from diffusers import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

    with torch.device("meta"):
        vae = AutoencoderKL.from_config(checkpoint.vae_config())
        encoder = CLIPTextModel(CLIPTextConfig(**checkpoint.text_encoder_config()))
        vision = CLIPVisionModelWithProjection(CLIPVisionConfig(**checkpoint.image_encoder_config()))
    assert shapes_of(checkpoint.vae()) == shapes_of(vae.state_dict())
    bare = {n.removeprefix("text_model."): s for n, s in shapes_of(checkpoint.text_encoder()).items()}
    assert bare == {n.removeprefix("text_model."): s for n, s in shapes_of(encoder.state_dict()).items()}
    assert checkpoint.text_encoder_config()["num_hidden_layers"] == 23
    assert checkpoint.image_encoder_config()["num_attention_heads"] == 16
    assert shapes_of(checkpoint.image_encoder()) == shapes_of(vision.state_dict())
    assert set(checkpoint.image_projector()) == {"latents", "layers.0.0.norm1.weight"}


def shapes_of(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
