"""I2VGen-XL from a picture to latents, as diffusers' pipeline makes them."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from PIL import Image

from t2v_models import load_pipeline
from t2v_models.errors import T2VError
from t2v_models.image.preprocess import square_pixels
from t2v_models.sampling.windows import Windows
from tests.references.parity import difference

from .support.i2vgen_folder import FRAMES, SIZE, expected, noise, picture, reference_pipeline, write_i2vgen_folder

TEXTS = {"prompt": "a red circle moves right", "negative_prompt": "blue"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_i2vgen_folder(tmp_path_factory.mktemp("i2vgen") / "model")


@pytest.fixture(scope="module")
def reference(folder) -> Any:
    return reference_pipeline(folder)


@pytest.fixture(scope="module")
def pipeline(folder) -> Any:
    return load_pipeline(folder)


def made(pipeline: Any, steps: int = 2, **options: Any) -> torch.Tensor:
    """Our latents."""
    options = {"image": picture(), "frames": FRAMES, "width": SIZE, "height": SIZE, "latents": noise()} | options
    return pipeline(*TEXTS.values(), steps=steps, decode=False, **options).latents


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "guidance_scale"), [(5, 9.0), (5, 1.0), (7, 3.0)], ids=["5 steps", "unguided", "7 steps"]
)
def test_a_picture_becomes_the_latents_of_diffusers_pipeline(pipeline, reference, steps, guidance_scale):
    wanted = expected(reference, steps, guidance_scale, **TEXTS)
    assert difference(made(pipeline, steps, guidance_scale=guidance_scale), wanted) < 1e-4


@pytest.mark.slow
def test_the_pictures_of_a_batch_are_made_as_if_each_were_alone(pipeline):
    other = picture()[:, ::-1].copy()
    both = pipeline(
        [TEXTS["prompt"]] * 2, "blue", image=[picture(), other], frames=FRAMES, width=SIZE, height=SIZE, steps=2,
        latents=noise().repeat(2, 1, 1, 1, 1), decode=False,
    ).latents  # fmt: skip
    assert difference(both[:1], made(pipeline)) < 1e-5
    assert difference(both[1:], made(pipeline, image=other)) < 1e-5
    assert difference(both[1:], both[:1]) > 1e-2


@pytest.mark.slow
def test_two_pictures_in_a_row_leave_no_traces_of_each_other(pipeline):
    first = made(pipeline)
    made(pipeline, image=picture()[::-1].copy())
    assert torch.equal(made(pipeline), first)


@pytest.mark.slow
def test_the_picture_has_a_scale_of_its_own(pipeline):
    plain = made(pipeline, guidance_scale=5.0)
    assert difference(made(pipeline, guidance_scale=5.0, image_guidance_scale=5.0), plain) < 1e-5
    assert difference(made(pipeline, guidance_scale=5.0, image_guidance_scale=2.0), plain) > 1e-3


@pytest.mark.slow
def test_strength_0_is_the_text_alone_whatever_the_picture(pipeline):
    one, other = (made(pipeline, image=each, image_strength=0.0) for each in (picture(), picture()[::-1].copy()))
    assert torch.equal(one, other)
    assert difference(made(pipeline, image_strength=0.5), made(pipeline)) > 1e-3


@pytest.mark.slow
def test_windows_over_exactly_the_clip_equal_none_and_longer_clips_are_made(pipeline):
    assert torch.equal(made(pipeline, windows=Windows(FRAMES, 2)), made(pipeline))
    long = made(pipeline, frames=7, windows=Windows(FRAMES, 2), latents=None)
    assert long.shape[2] == 7
    assert bool(torch.isfinite(long).all())


@pytest.mark.slow
def test_what_it_cannot_take_is_refused_in_a_sentence(pipeline):
    for given, said in (
        ({"image": None}, "picture"),
        ({"end_image": picture()}, "first picture only"),
        ({"image": [picture()] * 2}, "image"),
    ):
        with pytest.raises(T2VError, match=said):
            made(pipeline, **given)


@pytest.mark.parametrize(("width", "height"), [(64, 64), (120, 70), (33, 200), (640, 480)])
def test_clip_sees_the_middle_square_as_in_diffusers_pipeline(reference, width, height):
    module = sys.modules[type(reference).__module__]
    image = Image.fromarray(picture(width, height))
    square = module._resize_bilinear(module._center_crop_wide(image, (SIZE, SIZE)), (224, 224))
    pixels = reference.video_processor.numpy_to_pt(reference.video_processor.pil_to_numpy(square))
    how = {"do_normalize": True, "do_center_crop": False, "do_resize": False, "do_rescale": False}
    wanted = reference.feature_extractor(images=pixels, return_tensors="pt", **how).pixel_values
    ours = square_pixels(torch.from_numpy(picture(width, height))[None] / 255, SIZE)
    assert difference(ours, wanted) < 1e-6


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 3000), (3000, 2)])
def test_a_picture_of_any_shape_has_a_middle_square(width, height):
    assert square_pixels(torch.full((1, height, width, 3), 0.5), 1280).shape == (1, 3, 224, 224)
