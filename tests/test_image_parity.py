"""The image encoder, its preprocessing and the Resampler compute what kornia's, transformers' and diffusers' compute."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from t2v_models.checkpoints import image_encoder
from t2v_models.checkpoints.tensors import as_lazy, load_all
from t2v_models.image.encoder import make_encoder, vision_state
from t2v_models.image.latents import per_frame
from t2v_models.image.preprocess import clip_pixels, resize
from t2v_models.image.resampler import ResamplerConfig, make_resampler
from tests.references.parity import difference
from tests.references.seeding import fill, normal

kornia = pytest.importorskip("kornia", reason="the reference for resizing: pip install kornia")
transformers = pytest.importorskip("transformers")
diffusers = pytest.importorskip("diffusers")

TOLERANCE = 1e-6
SIZES = [(320, 512), (576, 1024), (256, 256), (200, 180), (100, 900), (224, 224), (1, 1), (1, 300), (1000, 2)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_it_resizes_as_kornia_does(height: int, width: int) -> None:
    pixels = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    try:
        wanted = kornia.geometry.resize(pixels, (224, 224), interpolation="bicubic", align_corners=True, antialias=True)
    except RuntimeError as error:
        if height == 1 and "Padding size" in str(error):
            pytest.skip("this kornia cannot smooth a single row")
        raise
    assert difference(resize(pixels, 224, 224), wanted) < TOLERANCE


def test_pixels_are_normalised_as_the_originals_do_in_their_range_of_minus_one_to_one() -> None:
    images = torch.rand(2, 320, 512, 3, generator=torch.Generator().manual_seed(0))
    x = images.movedim(-1, 1) * 2 - 1
    x = kornia.geometry.resize(x, (224, 224), interpolation="bicubic", align_corners=True, antialias=True)
    mean, deviation = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    wanted = kornia.enhance.normalize((x + 1) / 2, torch.tensor(mean), torch.tensor(deviation))
    assert difference(clip_pixels(images), wanted) < TOLERANCE


def reference_encoder() -> transformers.CLIPVisionModelWithProjection:
    config = transformers.CLIPVisionConfig(
        hidden_size=64, intermediate_size=160, num_hidden_layers=3, num_attention_heads=4, patch_size=14, image_size=224,
        hidden_act="gelu", projection_dim=48,
    )  # fmt: skip
    return fill(transformers.CLIPVisionModelWithProjection(config)).eval()


def published_names(model: torch.nn.Module) -> dict[str, Tensor]:
    """The weights as in files that transformers 4 and 5 write."""
    return {name: tensor for name, tensor in model.state_dict().items() if "position_ids" not in name}


@pytest.mark.parametrize("layout", ["transformers", "openclip"])
def test_the_image_encoder_computes_what_transformers_computes(layout: str) -> None:
    reference = reference_encoder()
    weights = published_names(reference)
    if layout == "openclip":
        weights = load_all(image_encoder.to_openclip(as_lazy(weights)))
        assert "visual.transformer.resblocks.2.attn.in_proj_weight" in weights
    ours = make_encoder(weights, config={"num_attention_heads": 4})
    images = torch.rand(2, 90, 150, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = reference(clip_pixels(images))
    assert ours.encode(images).shape == (2, 257, 64)
    assert difference(ours.encode(images), wanted.last_hidden_state) < TOLERANCE
    assert difference(ours.embedding(clip_pixels(images)), wanted.image_embeds) < TOLERANCE


def test_both_layouts_give_the_same_weights_bit_for_bit() -> None:
    weights = published_names(reference_encoder())
    back = vision_state(load_all(image_encoder.to_openclip(as_lazy(weights))))
    assert set(back) == set(weights)
    assert all(torch.equal(back[name], weights[name]) for name in weights)


NAMES = (
    ("norm1", "ln0"), ("norm2", "ln1"), ("to_q", "attn.to_q"), ("to_out", "attn.to_out.0"),
)  # fmt: skip


def published_resampler(reference: torch.nn.Module) -> dict[str, Tensor]:
    """The weights of diffusers' IPAdapterPlusImageProjection under the names of DynamiCrafter's checkpoint."""
    theirs = reference.state_dict()
    weights = {n: t for n, t in theirs.items() if n.startswith(("latents", "proj_in", "proj_out", "norm_out"))}
    for i in range(len(reference.layers)):
        old, new = f"layers.{i}.", f"layers.{i}.0."
        for ours, name in NAMES:
            for kind in ("weight", "bias"):
                if f"{old}{name}.{kind}" in theirs:
                    weights[f"{new}{ours}.{kind}"] = theirs[f"{old}{name}.{kind}"]
        weights[f"{new}to_kv.weight"] = torch.cat([theirs[f"{old}attn.to_{x}.weight"] for x in "kv"])
        for kind in ("weight", "bias"):
            weights[f"layers.{i}.1.0.{kind}"] = theirs[f"{old}ff.0.{kind}"]
        weights[f"layers.{i}.1.1.weight"] = theirs[f"{old}ff.1.net.0.proj.weight"]
        weights[f"layers.{i}.1.3.weight"] = theirs[f"{old}ff.1.net.2.weight"]
    return weights


@pytest.mark.parametrize("queries", [20, 48])
def test_the_resampler_computes_what_diffusers_computes(queries: int) -> None:
    reference = fill(
        diffusers.models.embeddings.IPAdapterPlusImageProjection(
            embed_dims=40,
            output_dims=24,
            hidden_dims=48,
            depth=2,
            dim_head=16,
            heads=3,
            num_queries=queries,
            ffn_ratio=4,
        )
    ).eval()
    weights = published_resampler(reference)
    ours = make_resampler(weights, head_dim=16)
    assert ours.config == ResamplerConfig(queries, 40, 48, 24, 2, 3, 16, 192)
    tokens = normal("tokens", (2, 11, 40))
    with torch.no_grad():
        wanted = reference(tokens)
    assert difference(ours(tokens), wanted) < TOLERANCE
    assert torch.equal(per_frame(ours(tokens), queries // 16, 16).flatten(1, -2), ours(tokens))
