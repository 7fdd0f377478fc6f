"""What a picture adds to the conditions of a UNet: tokens, latents, a strength, and a guidance of its own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from t2v_models.conditions import Conditions, predict
from t2v_models.errors import T2VError
from t2v_models.request import ClipRequest
from t2v_models.sampling.guidance import classifier_free, with_image
from t2v_models.sampling.windows import Windows
from t2v_models.unet import UNet3D, UNetConfig
from tests.references.seeding import fill, normal
from tests.test_request import MODEL

SMALL = UNetConfig(
    in_channels=8,
    channels=(32, 32),
    attention_levels=(True, False),
    num_res_blocks=1,
    context_dim=16,
    head_dim=16,
    fps_embedding=True,
    image_attention=True,
)
X, LATENTS, CONTEXT = normal("x", (1, 4, 8, 4, 4)), normal("image latents", (1, 4, 8, 4, 4)), normal("c", (2, 5, 16))
TIMES = torch.tensor([500])


@pytest.fixture(scope="module")
def unet() -> UNet3D:
    return fill(UNet3D(SMALL))


def tokens(frames: int = 0) -> torch.Tensor:
    """(2, 6, 16) for all frames, or (2, frames, 6, 16)."""
    return normal("tokens", (2, *((frames,) if frames else ()), 6, 16))


def run(unet, conditions: Conditions, windows: Windows | None = None, x: torch.Tensor = X) -> torch.Tensor:
    return predict(unet if windows is None else windows.over(x.shape[2]).around(unet), x, TIMES, CONTEXT, conditions)


def test_image_latents_are_the_last_channels_of_the_input(unet):
    conditions = Conditions(image=tokens(), image_latents=LATENTS)
    wanted = unet(torch.cat([X, LATENTS], 1), TIMES, CONTEXT, image_context=tokens())
    assert torch.equal(run(unet, conditions), wanted)


def test_strength_0_equals_text_alone_and_1_is_the_model_as_trained(unet):
    conditions = Conditions(image=tokens(), image_latents=LATENTS)
    alone = run(unet, replace(conditions, image=None))
    assert torch.equal(run(unet, replace(conditions, image_strength=0.0)), alone)
    whole = run(unet, conditions)
    assert torch.equal(run(unet, replace(conditions, image_strength=1.0)), whole)
    half = run(unet, replace(conditions, image_strength=0.5))
    assert 0 < (half - alone).norm() < (whole - alone).norm()


def test_strength_reaches_patched_attention_too(unet):
    """Patches of a host take another way through the transformer."""
    unchanged = {"patches": {"attn2_patch": [lambda q, k, v, extra: (q, k, v)]}}
    conditions = Conditions(image=tokens(), image_latents=LATENTS, image_strength=0.5)
    patched = predict(unet, X, TIMES, CONTEXT, conditions, unchanged)
    assert torch.allclose(patched, run(unet, conditions), atol=1e-5)


def test_windows_cut_image_latents_and_the_tokens_of_frames_but_not_those_of_all_frames(unet):
    each = tokens(8)
    seen: list[torch.Tensor] = []

    def spy(x, timesteps, context, *, image_context, **_):
        seen.append(image_context)
        return torch.cat([x[:, 4:]] * 2)  # the image latents of the window

    fused = run(spy, Conditions(image=each, image_latents=LATENTS), Windows(4, 2))
    assert torch.allclose(fused, torch.cat([LATENTS] * 2), atol=1e-6)
    spans = Windows(4, 2).over(8).spans()
    assert torch.equal(torch.cat(seen), torch.cat([each[r : r + 1, span] for r in (0, 1) for span in spans]))
    seen.clear()
    run(spy, Conditions(image=tokens(), image_latents=LATENTS), Windows(4, 2))
    assert torch.equal(torch.cat(seen), tokens().repeat_interleave(len(spans), 0))


def test_tokens_of_as_many_frames_as_a_window_has_belong_to_places_in_the_window():
    places = tokens(4)
    seen: list[torch.Tensor] = []

    def spy(x, timesteps, context, *, image_context, **_):
        seen.append(image_context)
        return torch.cat([x] * 2)

    run(spy, Conditions(image=places), Windows(4, 2))
    assert torch.equal(torch.cat(seen), places.repeat_interleave(3, 0))


@pytest.mark.parametrize("frames", [0, 8])
def test_one_window_over_all_frames_equals_none(unet, frames):
    conditions = Conditions(image=tokens(frames), image_latents=LATENTS, image_strength=0.7)
    assert torch.equal(run(unet, conditions, Windows(8, 4)), run(unet, conditions))


def test_free_noise_keeps_the_strength_of_the_image(unet):
    conditions = Conditions(image=tokens(), image_latents=LATENTS, image_strength=0.0)
    other = replace(conditions, image=tokens() + 1)
    windows = Windows(4, 2, free_noise=True)
    assert torch.equal(run(unet, conditions, windows), run(unet, other, windows))


def test_equal_scales_of_text_and_image_are_plain_guidance():
    cond, image_only, uncond = (normal(name, (2, 4, 3, 2, 2)) for name in ("cond", "image only", "uncond"))
    plain = classifier_free(cond, uncond, 7.5)
    assert torch.allclose(with_image(cond, image_only, uncond, 7.5, 7.5), plain, atol=1e-5)
    assert torch.allclose(with_image(cond, image_only, uncond, 1, 1), cond, atol=1e-6)
    assert torch.allclose(with_image(cond, image_only, uncond, 3, 0), uncond + 3 * (cond - image_only), atol=1e-6)


def request(**given) -> ClipRequest:
    return ClipRequest.of_prompts(MODEL, given.pop("prompt", "a"), "", **given)


def test_one_picture_is_for_every_prompt_and_several_are_for_one_each():
    picture = np.zeros((9, 12, 3), dtype=np.uint8)
    assert request(image=picture).image.shape == (1, 9, 12, 3)
    assert request(image=picture, prompt=["a", "b"]).image.shape == (2, 9, 12, 3)
    assert request(image=[picture, picture], prompt=["a", "b"]).end_image is None
    assert request(image_guidance_scale=3).image_guidance_scale == 3
    assert request(guidance_scale=4).image_guidance_scale == 4


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (torch.zeros(9, 12, 4), r"4 channels \(RGBA\): lay it on a background first"),
        (Image.new("RGBA", (12, 9)), "transparency: lay it on a background first"),
        ([Image.new("LA", (12, 9))], "transparency: lay it on a background first"),
        ((Image.new("RGBA", (12, 9)),), "transparency: lay it on a background first"),
        (torch.zeros(9, 12, 1), "1 channels"),
        (torch.zeros(9, 12), "shape"),
        ([torch.zeros(9, 12, 3)] * 3, "3 pictures: one is wanted"),
        (torch.zeros(2, 3, 9, 12, 3), "shape"),
        (torch.zeros(1, 1, 3), "1x1 pixels"),
        (torch.zeros(8, 20_000, 3), "20000x8 pixels"),
        (torch.full((9, 12, 3), 200.0), "values from 200"),
        (torch.full((9, 12, 3), float("nan")), "NaN"),
        ("cat.png", "str"),
        (object(), "object"),
    ],
)
@pytest.mark.parametrize("name", ["image", "end_image"])
def test_what_is_no_picture_is_refused_in_a_sentence(name, picture, said):
    with pytest.raises(T2VError, match=said) as error:
        request(**{name: picture})
    assert str(error.value).startswith(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "given", [{"image_strength": 1.5}, {"image_strength": "x"}, {"motion": 3}, {"image_guidance_scale": float("nan")}]
)
def test_values_that_no_video_can_be_made_with_are_refused(given):
    with pytest.raises(T2VError):
        request(**given)
