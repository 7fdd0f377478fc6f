"""Pictures are fitted, encoded, made tokens and image latents as their documentation promises, and wrong ones are refused."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from t2v_models.checkpoints import image_encoder, open_checkpoint
from t2v_models.checkpoints.tensors import as_lazy, load_all
from t2v_models.errors import T2VError
from t2v_models.image.encoder import ImageEncoder, make_encoder
from t2v_models.image.fit import FITS, fit
from t2v_models.image.latents import concat_latents, per_frame
from t2v_models.image.preprocess import clip_pixels, grey_image, resize
from t2v_models.image.resampler import Resampler, ResamplerConfig, make_resampler

from .support.checkpoints import all_in_one, image_encoder_weights, image_parts, resampler_weights


def picture(height: int, width: int, batch: int = 1, seed: int = 0) -> Tensor:
    """(batch, height, width, 3), smooth and coloured, 0..1."""
    coarse = torch.rand(batch, 3, 4, 5, generator=torch.Generator().manual_seed(seed))
    return resize(coarse, height, width).clamp(0, 1).movedim(1, -1)


# Fitting


@pytest.mark.parametrize("how", FITS)
def test_a_picture_of_the_right_size_stays_as_it_is(how: str, caplog: pytest.LogCaptureFixture) -> None:
    images = picture(40, 64)
    with caplog.at_level(logging.INFO):
        assert torch.equal(fit(images, 64, 40, how), images)
    assert not caplog.records


@pytest.mark.parametrize("how", FITS)
@pytest.mark.parametrize(("height", "width"), [(320, 512), (600, 800), (900, 300), (1, 1), (7, 1000)])
def test_every_picture_gets_the_clips_size_and_stays_in_its_range(how: str, height: int, width: int) -> None:
    fitted = fit(picture(height, width, batch=2), 64, 40, how)
    assert fitted.shape == (2, 40, 64, 3)
    assert -1e-6 < fitted.min() <= fitted.max() < 1 + 1e-6


@pytest.mark.parametrize("how", FITS)
def test_a_picture_of_the_clips_shape_is_only_scaled(how: str, caplog: pytest.LogCaptureFixture) -> None:
    images = picture(80, 128)
    with caplog.at_level(logging.INFO):
        assert torch.equal(fit(images, 64, 40, how), fit(images, 64, 40, "stretch"))
    assert not caplog.records


def test_cropping_keeps_the_middle_and_padding_keeps_all() -> None:
    images = torch.zeros(1, 40, 120, 3)
    images[:, :, 40:80] = 1
    assert fit(images, 40, 40, "crop").min() == 1
    padded = fit(images, 60, 60, "pad")
    assert padded[0, 30, :, 0].tolist() == fit(images, 60, 20, "stretch")[0, 10, :, 0].tolist()
    assert padded[0, :20].abs().max() == padded[0, 40:].abs().max() == 0


@pytest.mark.parametrize(("height", "width"), [(20_000, 1), (1, 20_000), (3, 16_384)])
def test_a_line_of_pixels_is_cut_without_being_scaled_as_a_whole(height: int, width: int) -> None:
    line = torch.linspace(0, 1, max(height, width)).view(1, *((-1, 1) if height > width else (1, -1)), 1)
    fitted = fit(line.expand(1, height, width, 3), 512, 320)
    assert (fitted - 0.5).abs().max() < 1e-3, "the middle"


@pytest.mark.parametrize(("height", "width"), [(60, 601), (700, 64), (65, 1000)])
def test_a_long_picture_is_cut_as_if_it_had_been_scaled_as_a_whole(height: int, width: int) -> None:
    images = picture(height, width)
    scale = max(64 / width, 40 / height)
    whole = torch.nn.functional.interpolate(
        images.movedim(-1, 1), size=(round(height * scale), round(width * scale)), mode="bilinear", antialias=True
    ).movedim(1, -1)
    top, left = (whole.shape[1] - 40) // 2, (whole.shape[2] - 64) // 2
    assert (fit(images, 64, 40) - whole[:, top : top + 40, left : left + 64]).abs().max() < 0.02


def test_scaling_is_pillows_to_less_than_one_step_of_eight_bits() -> None:
    from PIL import Image

    pixels = (picture(90, 160)[0] * 255).round().byte().numpy()
    wanted = np.asarray(Image.fromarray(pixels).resize((64, 36), Image.Resampling.BILINEAR))
    ours = fit(torch.from_numpy(pixels)[None] / 255, 64, 36)[0] * 255
    assert np.abs(ours.numpy() - wanted).max() < 1


@pytest.mark.parametrize(
    ("size", "how", "said"),
    [
        ((600, 800), "crop", "The picture of 800x600 is cut to 512x320: 17 % of its height is lost."),
        ((320, 1024), "crop", "50 % of its width is lost"),
        ((800, 400), "pad", "The picture of 400x800 is padded to 512x320: 69 % of each frame is black bars."),
        ((320, 256), "stretch", "The picture of 256x320 is stretched to 512x320: it becomes 100 % wider."),
        ((640, 512), "stretch", "it becomes 100 % wider"),
        ((160, 512), "stretch", "it becomes 100 % taller"),
    ],
)
def test_what_fitting_costs_is_logged(
    size: tuple[int, int], how: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        fit(torch.zeros(1, *size, 3), 512, 320, how)
    assert len(caplog.records) == 1
    assert said in caplog.text


def test_an_unknown_way_to_fit_is_refused() -> None:
    with pytest.raises(T2VError, match="choose one of crop, pad, stretch"):
        fit(picture(8, 8), 16, 16, "cover")


# The image encoder


@pytest.fixture(scope="module")
def encoder() -> ImageEncoder:
    return make_encoder(image_encoder_weights())


def test_two_pictures_are_encoded_as_each_alone(encoder: ImageEncoder) -> None:
    images = picture(50, 90, batch=2)
    alone = torch.cat([encoder.encode(images[:1]), encoder.encode(images[1:])])
    assert (encoder.encode(images) - alone).abs().max() < 1e-5


def test_the_grey_picture_is_grey_at_every_size(encoder: ImageEncoder) -> None:
    assert (clip_pixels(grey_image()) - clip_pixels(torch.full((1, 320, 512, 3), 0.5))).abs().max() < 3e-6
    assert encoder.encode(grey_image()).shape == (1, 257, 64)


def test_a_checkpoints_encoder_is_the_one_that_was_stored(encoder: ImageEncoder) -> None:
    checkpoint = open_checkpoint(all_in_one() | image_parts())
    ours = make_encoder(checkpoint.image_encoder(), config=checkpoint.image_encoder_config())
    images = picture(64, 64)
    assert torch.equal(ours.encode(images), encoder.encode(images))


def test_an_encoder_without_a_projection_still_gives_tokens() -> None:
    weights = {name: tensor for name, tensor in image_encoder_weights().items() if name != "visual_projection.weight"}
    bare = make_encoder(weights)
    assert bare.encode(picture(64, 64)).shape == (1, 257, 64)
    with pytest.raises(T2VError, match="no projection"):
        bare.embedding(clip_pixels(picture(64, 64)))


DAMAGE = {
    "no class embedding": ("vision_model.embeddings.class_embedding", None),
    "no last layer's bias": ("vision_model.encoder.layers.1.mlp.fc2.bias", None),
    "no final norm": ("vision_model.post_layernorm.weight", None),
    "positions of no square": ("vision_model.embeddings.position_embedding.weight", (250, 64)),
    "no positions": ("vision_model.embeddings.position_embedding.weight", (0, 64)),
    "patches of no size": ("vision_model.embeddings.patch_embedding.weight", (64, 3, 0, 0)),
    "a scalar for the class embedding": ("vision_model.embeddings.class_embedding", ()),
    "a narrow projection": ("visual_projection.weight", (64, 32)),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("layout", ["transformers", "openclip"])
def test_a_damaged_image_encoder_is_refused_in_one_sentence(damage: str, layout: str) -> None:
    name, shape = DAMAGE[damage]
    weights = dict(image_encoder_weights())
    del weights[name]
    if shape is not None:
        weights[name] = torch.zeros(shape)
    if layout == "openclip":
        weights = load_all(image_encoder.to_openclip(as_lazy(weights)))
    with pytest.raises(T2VError, match="image encoder"):
        make_encoder(weights)


def test_heads_that_do_not_divide_the_width_are_refused(tmp_path) -> None:
    with pytest.raises(T2VError, match="3 heads"):
        make_encoder(image_encoder_weights(), config={"num_attention_heads": 3})


# The Resampler


@pytest.mark.parametrize(("queries", "weights"), [(16, 48_541_696), (256, 48_787_456)])
def test_the_resampler_has_the_published_tensors(queries: int, weights: int) -> None:
    shapes = ResamplerConfig(queries=queries).shapes()
    wanted = {"latents.weight": (queries, 1024), "proj_in.weight": (1024, 1280), "proj_in.bias": (1024,),
              "proj_out.weight": (1024, 1024), "proj_out.bias": (1024,), "norm_out.weight": (1024,),
              "norm_out.bias": (1024,)}  # fmt: skip
    for i in range(4):
        wanted |= {f"layers.{i}.0.{norm}.{kind}": (1024,) for norm in ("norm1", "norm2") for kind in ("weight", "bias")}
        wanted |= {f"layers.{i}.0.to_q.weight": (768, 1024), f"layers.{i}.0.to_kv.weight": (1536, 1024),
                   f"layers.{i}.0.to_out.weight": (1024, 768), f"layers.{i}.1.0.weight": (1024,),
                   f"layers.{i}.1.0.bias": (1024,), f"layers.{i}.1.1.weight": (4096, 1024),
                   f"layers.{i}.1.3.weight": (1024, 4096)}  # fmt: skip
    assert shapes == wanted
    assert len(shapes) == 51
    assert sum(math.prod(shape) for shape in shapes.values()) == weights


def test_the_order_of_a_pictures_tokens_does_not_matter() -> None:
    resampler = make_resampler(resampler_weights())
    tokens = torch.randn(2, 9, 64, generator=torch.Generator().manual_seed(0))
    assert (resampler(tokens) - resampler(tokens.flip(1))).abs().max() < 1e-5


def test_two_pictures_get_the_tokens_of_each_alone() -> None:
    resampler = make_resampler(resampler_weights())
    tokens = torch.randn(2, 9, 64, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([resampler(tokens[:1]), resampler(tokens[1:])])
    assert (resampler(tokens) - alone).abs().max() < 1e-5


def test_a_hosts_attention_and_layers_take_the_place_of_torchs() -> None:
    calls = []

    def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, **options: object) -> Tensor:
        calls.append(heads)
        return torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1) @ v

    made = []

    class Operations(torch.nn.Module):
        class Linear(torch.nn.Linear):
            def __init__(self, *args: object, **kwargs: object) -> None:
                made.append(self)
                super().__init__(*args, **kwargs)

        Embedding, LayerNorm = torch.nn.Embedding, torch.nn.LayerNorm

    ours = make_resampler(resampler_weights())
    theirs = Resampler(ours.config, Operations, attention)
    theirs.load_state_dict(ours.state_dict())
    tokens = torch.randn(1, 9, 64, generator=torch.Generator().manual_seed(0))
    assert (theirs(tokens) - ours(tokens)).abs().max() < 1e-5
    assert calls == [1, 1]
    assert len(made) == 2 + 5 * ours.config.depth


def test_every_weight_of_the_resampler_is_in_a_layer_that_a_host_can_move() -> None:
    leaves = (torch.nn.Linear, torch.nn.Embedding, torch.nn.LayerNorm)
    owners = [module for module in Resampler(ResamplerConfig(depth=1), device="meta").modules() if module._parameters]
    assert all(isinstance(module, leaves) for module in owners)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("latents", None),
        ("latents", (64, 64)),
        ("proj_in.weight", ()),
        ("layers.1.1.3.weight", None),
        ("layers.0.0.to_kv.weight", (64, 64)),
        ("layers.0.0.to_q.weight", (96, 64)),
        ("layers.7.0.norm1.weight", (64,)),
        ("layers.x.0.norm1.weight", (64,)),
    ],
)
def test_weights_of_another_network_are_refused(name: str, shape: tuple[int, ...] | None) -> None:
    weights = dict(resampler_weights())
    weights.pop(name, None)
    if shape is not None:
        weights[name] = torch.zeros(shape)
    with pytest.raises(T2VError, match="image tokens"):
        make_resampler(weights)


# Tokens and latents of the frames


def test_tokens_are_split_over_the_frames_where_there_are_as_many() -> None:
    tokens = torch.arange(2 * 64 * 3.0).view(2, 64, 3)
    split = per_frame(tokens, 4)
    assert split.shape == (2, 4, 16, 3)
    assert torch.equal(split[:, 1], tokens[:, 16:32])
    for frames in (1, 3, 5, 16):
        assert per_frame(tokens, frames) is tokens


def test_every_rule_puts_the_picture_into_the_first_frame() -> None:
    first, last = torch.randn(2, 4, 3, 5), torch.randn(2, 4, 3, 5)
    repeated = concat_latents(first, None, 6, "repeat")
    assert torch.equal(repeated, first[:, :, None].expand(-1, -1, 6, -1, -1))
    ends = concat_latents(first, last, 6, "ends")
    assert torch.equal(ends[:, :, 0], first)
    assert torch.equal(ends[:, :, 5], last)
    assert not ends[:, :, 1:5].any()
    ramp = concat_latents(first, None, 6, "ramp")
    assert torch.equal(ramp[:, :, 0], first)
    for k in range(1, 6):
        assert torch.allclose(ramp[:, :, k], torch.full_like(first, k / 5))
    assert repeated.shape == ends.shape == ramp.shape == (2, 4, 6, 3, 5)


def test_without_a_last_picture_the_ends_are_those_of_a_loop() -> None:
    first = torch.randn(1, 4, 3, 5)
    assert torch.equal(concat_latents(first, None, 6, "ends"), concat_latents(first, first, 6, "ends"))


@pytest.mark.parametrize("rule", ["repeat", "ends", "ramp"])
def test_a_clip_of_one_frame_is_the_first_picture(rule: str) -> None:
    first = torch.randn(1, 4, 3, 5)
    assert torch.equal(concat_latents(first, None, 1, rule)[:, :, 0], first)


@pytest.mark.parametrize("rule", ["repeat", "ends", "ramp"])
def test_image_latents_of_a_batch_are_those_of_each_alone(rule: str) -> None:
    first = torch.randn(2, 4, 3, 5)
    alone = torch.cat([concat_latents(each[None], None, 6, rule) for each in first])
    assert torch.equal(concat_latents(first, None, 6, rule), alone)


def test_image_latents_that_no_model_takes_are_refused() -> None:
    first = torch.randn(1, 4, 3, 5)
    with pytest.raises(T2VError, match="choose one of repeat, ends, ramp"):
        concat_latents(first, None, 6, "fade")
    for rule in ("repeat", "ramp"):
        with pytest.raises(T2VError, match="leave the end image out"):
            concat_latents(first, first, 6, rule)
    with pytest.raises(T2VError, match="same size"):
        concat_latents(first, first[..., :4], 6, "ends")
