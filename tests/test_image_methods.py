"""Pictures for models that were made for texts alone."""

from dataclasses import replace

import pytest
import torch

from t2v_models.errors import T2VError
from t2v_models.image.camera import CAMERAS, camera, camera_stills
from t2v_models.image.methods import METHODS, ImageMethod, with_camera
from t2v_models.sampling.frame_init import frame_init_noise
from t2v_models.sampling.windows import Windows

from .support.films import small_pipeline

PICTURE, OTHER = torch.rand(2, 32, 32, 3, generator=torch.Generator().manual_seed(0))
CALL = {"width": 32, "height": 32, "frames": 6, "steps": 3, "guidance_scale": 3.0, "decode": False}
SLIDE = ImageMethod("repeat-and-slide", known=3, resample=1)
WAYS = [ImageMethod("hold", resample=1), SLIDE, ImageMethod("frame-init")]


def named(method):
    return method.name


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return small_pipeline(tmp_path_factory.mktemp("image"))


@pytest.fixture(params=[False, True], ids=["noisy frames", "clean frames"])
def model(pipeline, request, monkeypatch):
    """A model that knows one timestep for all frames, and one that knows a timestep for each."""
    monkeypatch.setattr(pipeline, "family", replace(pipeline.family, frame_timesteps=request.param, frames=5))
    return pipeline


def made(pipeline, prompt="a red circle", **options):
    return pipeline(prompt, **{**CALL, **options}).latents


def latent(pipeline, picture):
    return pipeline.encode_video(picture[None, None])[:, :, 0]


@pytest.mark.parametrize("ends", [("image",), ("end_image",), ("image", "end_image")])
def test_held_pictures_are_the_ends_exactly_and_the_frames_between_follow(model, ends):
    given = {"image": PICTURE, "end_image": OTHER}
    method = ImageMethod("hold", resample=1)
    x, alone = made(model, image_method=method, **{end: given[end] for end in ends}), made(model)
    for end, at in (("image", 0), ("end_image", -1)):
        assert torch.equal(x[:, :, at], latent(model, given[end])) == (end in ends)
    assert not torch.allclose(x[:, :, 1:-1], alone[:, :, 1:-1], atol=1e-3)


def test_first_frame_is_exact_where_the_picture_is_repeated_and_frames_follow_one_by_one(model):
    x = made(model, image=PICTURE, image_method=SLIDE)
    assert torch.equal(x[:, :, 0], latent(model, PICTURE))
    assert x.shape[2] == CALL["frames"]


def test_frame_init_is_an_ordinary_run_on_its_noise(pipeline):
    noise = torch.randn(1, 4, 6, 4, 4, generator=torch.Generator().manual_seed(3))
    still = pipeline.encode_video(PICTURE[None, None])
    begun = frame_init_noise(noise, still, pipeline.schedule, 700, 0.5)
    method = ImageMethod("frame-init", timestep=700, cutoff=0.5)
    assert torch.equal(made(pipeline, seed=3, image=PICTURE, image_method=method), made(pipeline, latents=begun))
    half = made(pipeline, seed=3, image=PICTURE, image_method=method, image_strength=0.5)
    assert torch.allclose(half, made(pipeline, latents=(noise + begun) / 2), atol=1e-4)


@pytest.mark.parametrize("name", ["none", "zoom in", "pan left"])
def test_camera_moves_over_the_picture(pipeline, name):
    stills = pipeline.encode_video(camera_stills(PICTURE[None], 6, camera(name)))
    noise = torch.randn(1, 4, 6, 4, 4, generator=torch.Generator().manual_seed(3))
    begun = frame_init_noise(noise, stills, pipeline.schedule)
    x = made(pipeline, seed=3, image=PICTURE, image_method=with_camera("frame-init", name))
    assert torch.allclose(x, made(pipeline, latents=begun), atol=1e-4)


@pytest.mark.parametrize("method", WAYS, ids=named)
def test_strength_zero_is_the_text_alone(model, method):
    assert torch.equal(made(model, image=PICTURE, image_method=method, image_strength=0), made(model))


@pytest.mark.slow
@pytest.mark.parametrize("method", WAYS, ids=named)
def test_two_prompts_and_pictures_equal_two_runs_and_leave_no_trace(model, method):
    prompts, pictures = ["a red circle", "a blue square"], [PICTURE, OTHER]
    both = made(model, prompts, image=pictures, image_method=method, seed=5)
    for i in (1, 0, 1):
        one = made(model, prompts[i], image=pictures[i], image_method=method, seed=5 + i)
        assert torch.allclose(both[i : i + 1], one, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("method", WAYS, ids=named)
def test_progress_ends_at_the_work_that_was_announced(model, method):
    reports = []
    made(model, ["a", "b"], image=PICTURE, image_method=method, progress=lambda *report: reports.append(report))
    assert reports[-1][0] == reports[-1][1] == len(reports)
    assert [done for done, _ in reports] == list(range(1, len(reports) + 1))


@pytest.mark.slow
def test_one_window_over_all_frames_equals_none_and_longer_videos_have_their_ends(model):
    method = ImageMethod("hold", resample=1)
    call = {"image": PICTURE, "end_image": OTHER, "image_method": method}
    assert torch.equal(made(model, windows=Windows(6, 3), **call), made(model, **call))
    long = made(model, windows=Windows(4, 2), **{**call, "frames": 12})
    assert torch.equal(long[:, :, 0], latent(model, PICTURE))
    assert torch.equal(long[:, :, -1], latent(model, OTHER))


def test_auto_holds_where_frames_have_timesteps_or_the_video_has_an_end(model):
    exact = model.family.frame_timesteps
    method = ImageMethod.checked("auto", model.family, first=True, last=False)
    assert method.name == ("hold" if exact else "frame-init")
    assert ImageMethod.checked("auto", model.family, first=True, last=True).name == "hold"
    assert torch.equal(made(model, image=PICTURE), made(model, image=PICTURE, image_method=method.name))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image_method": "magic"}, "choose one of auto, frame-init"),
        ({"image_method": "frame-init", "end_image": OTHER}, "choose 'hold'"),
        ({"image_method": "repeat-and-slide", "image": None, "end_image": OTHER}, "choose 'hold'"),
        ({"image_method": "hold", "image": None}, "without a picture"),
        ({"image_method": ImageMethod("repeat-and-slide", known=9)}, "9 known frames in a clip of 5"),
        ({"image_method": ImageMethod("repeat-and-slide", known=0)}, "0 known frames"),
        ({"image_method": ImageMethod("hold", resample=-1)}, "resample is -1"),
        ({"image_method": ImageMethod("frame-init", cutoff=2.0)}, "cutoff is 2"),
        ({"image_method": ImageMethod("frame-init", timestep=1000)}, "timestep is 1000"),
        ({"image_method": "hold", "scheduler": "euler"}, "steps by ddim"),
        ({"image_method": "hold", "eta": 0.5}, "without new noise"),
        ({"image_method": "hold", "image_strength": 0.5}, "keeps the picture or not"),
        ({"image_method": SLIDE, "windows": Windows(4, 2)}, "takes no windows"),
        ({"image_method": SLIDE, "prompt": "", "story": "a red circle"}, "takes no story"),
        ({"image_method": SLIDE, "latents": torch.zeros(1, 4, 6, 4, 4)}, "takes no latents"),
        ({"video": torch.zeros(1, 6, 32, 32, 3)}, "leave one of them out"),
        ({"frames": 1, "end_image": OTHER}, "at least 2 frames"),
        ({"image_guidance_scale": 2.0}, "guided by the text alone"),
        ({"image_fit": "tile"}, "choose one of crop"),
    ],
)
def test_what_a_method_cannot_do_is_refused_in_a_sentence(model, options, said):
    with pytest.raises(T2VError, match=said):
        made(model, **{"image": PICTURE, **options})


def test_camera_belongs_to_frame_init():
    assert with_camera("auto", "none") == ImageMethod()
    assert with_camera("auto", "zoom in") == ImageMethod("frame-init", CAMERAS["zoom in"])
    for method in sorted(set(METHODS) - {"frame-init"}):
        with pytest.raises(T2VError, match="only 'frame-init' has one"):
            with_camera(method, "pan up")
