"""Long videos: every method makes every frame, is exact where it must be, and can be stopped and taken up again."""

from dataclasses import replace

import pytest
import torch

from t2v_models import load_pipeline
from t2v_models.errors import T2VError
from t2v_models.film import METHODS, Film
from t2v_models.film_methods import continue_clip
from t2v_models.sampling.windows import Windows

from .models import write_diffusers_folder

STORY = "0-50%: a red circle moves right / 50%-100%: a blue square moves up"
CALL = {"width": 32, "height": 32, "steps": 4, "guidance_scale": 3.0, "window": Windows(4, 2)}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return load_pipeline(write_diffusers_folder(tmp_path_factory.mktemp("film") / "model", prediction="v_prediction"))


def latents(film):
    return torch.cat(list(film.latents()), dim=2)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("frames", [1, 4, 11])
def test_every_method_makes_every_frame(pipeline, method, frames):
    window = Windows(4, 2) if frames >= 4 else None
    film = Film(pipeline, STORY, frames=frames, method=method, **{**CALL, "window": window})
    made = torch.cat(list(film.frames()))
    assert made.shape == (frames, 32, 32, 3)
    assert torch.isfinite(made).all()
    assert 0 <= made.min() <= made.max() <= 1


@pytest.mark.parametrize("method", ["windows", "free-noise", "coarse-to-fine", "endless"])
def test_a_film_no_longer_than_its_window_is_the_pipelines_own_video(pipeline, method):
    film = Film(pipeline, STORY, frames=4, method=method, **CALL)
    noise = torch.randn(film.shape, generator=film.noise(0))
    call = {key: value for key, value in CALL.items() if key != "window"}
    video = pipeline(story=STORY, frames=4, **call, latents=noise, decode=False)
    ends_on_alpha = pipeline.scheduler_config["set_alpha_to_one"]
    assert not ends_on_alpha  # the film ends on the clean latent, the reference schedule a little before
    assert (latents(film) - video.latents).abs().max() < 0.05 * video.latents.std()


@pytest.mark.parametrize("method", METHODS)
def test_the_seed_decides(pipeline, method):
    one, again, other = (latents(Film(pipeline, STORY, frames=7, method=method, seed=s, **CALL)) for s in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.allclose(one, other, atol=0.1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_stopped_film_goes_on_to_the_same_film(pipeline, method, stop, tmp_path):
    whole = latents(Film(pipeline, STORY, frames=11, method=method, **CALL))
    count = 0

    def interrupt(done, total):
        nonlocal count
        count += 1
        if count == stop:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        list(Film(pipeline, STORY, frames=11, method=method, resume=tmp_path, progress=interrupt, **CALL).latents())
    assert list(tmp_path.glob("*.safetensors"))
    resumed = Film(pipeline, STORY, frames=11, method=method, resume=tmp_path, **CALL)
    assert torch.equal(torch.cat(list(resumed.latents()), dim=2), whole)


def test_a_finished_film_leaves_nothing_in_its_folder(pipeline, tmp_path):
    list(Film(pipeline, STORY, frames=5, method="coarse-to-fine", resume=tmp_path, **CALL).frames())
    assert not list(tmp_path.iterdir())


def test_the_folder_of_another_film_is_refused(pipeline, tmp_path):
    Film(pipeline, STORY, frames=5, resume=tmp_path, **CALL)
    with pytest.raises(T2VError, match="other settings"):
        Film(pipeline, STORY, frames=6, resume=tmp_path, **CALL)


def test_key_frames_are_the_ends_of_what_lies_between(pipeline):
    film = Film(pipeline, "a red circle", frames=10, method="coarse-to-fine", **CALL)
    kept = {}
    film.store.once = lambda name, make: kept.setdefault(name, make())
    made = latents(film)
    keys = kept["keys"]
    assert keys.shape[2] == 4
    assert torch.equal(made[:, :, ::3], keys)


def test_a_continued_clip_takes_its_noise_from_the_generator_only(pipeline):
    film = Film(pipeline, "a red circle", frames=4, **CALL)
    with torch.no_grad():
        denoise = film.denoiser()
    clip = torch.randn(1, 4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    runs = []
    with torch.no_grad():
        for _ in range(2):
            following = continue_clip(denoise, clip, 4, torch.Generator().manual_seed(5))
            runs.append(torch.cat([next(following) for _ in range(3)], dim=2))
    assert torch.equal(*runs)
    assert runs[0].shape == (1, 4, 3, 4, 4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"method": "magic"}, "not known"),
        ({"frames": 0}, "frames is 0"),
        ({"window": Windows(4, 4)}, "overlap is 4"),
        ({"frames": 3}, "first window has 4 frames, but the clip has 3"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_wanted(pipeline, wrong, message):
    with pytest.raises(T2VError, match=message):
        list(Film(pipeline, "a red circle", **{**CALL, "frames": 9, **wrong}).latents())


def test_the_pipeline_yields_a_films_frames_as_they_are_finished(pipeline):
    call = {key: value for key, value in CALL.items() if key != "window"}
    parts = pipeline(story=STORY, method="coarse-to-fine", frames=10, windows=Windows(4, 2), **call)
    assert next(parts).shape[1:] == (32, 32, 3)
    assert sum(len(part) for part in parts) < 10


@pytest.mark.parametrize(
    ("frames", "window", "strides", "paces"),
    [
        (10, Windows(4, 2), (3, 1), ("fast ", "")),
        (40, Windows(8, 4), (7, 1), ("fast ", "slowly ")),
        (28, Windows(4, 2), (9, 3, 1), ("fast ", "", "slowly ")),
    ],
)
def test_key_frames_are_told_to_move_fast_what_lies_near_as_usual_and_what_lies_far_between_slowly(
    pipeline, monkeypatch, frames, window, strides, paces
):
    heard = []
    family = replace(pipeline.family, pace=("slowly", "fast"))
    monkeypatch.setattr(pipeline, "family", family)
    encode = pipeline.encode_text
    monkeypatch.setattr(pipeline, "encode_text", lambda texts: heard.append(texts) or encode(texts))
    call = {**CALL, "window": window}
    film = Film(pipeline, "a red circle moves right", frames=frames, method="coarse-to-fine", fps=63, **call)
    list(film.latents())
    assert [texts[1] for texts in heard if len(texts) > 1] == [f"{pace}a red circle moves right" for pace in paces]
    assert [film.denoiser(stride=stride).fps for stride in strides] == [63 / stride for stride in strides]


def test_a_given_clip_stays_as_it_is_and_the_film_goes_on_from_it(pipeline):
    clip = torch.rand(5, 32, 32, 3, generator=torch.Generator().manual_seed(2))
    film = Film(pipeline, "a red circle", frames=6, clip=clip, steps=4, guidance_scale=3.0, window=Windows(4, 2))
    made = torch.cat(list(film.frames()))
    assert film.method == "endless"
    assert made.shape == (11, 32, 32, 3)
    assert torch.equal(made[:5], clip)
    other = Film(pipeline, "a red circle", frames=6, clip=1 - clip, steps=4, guidance_scale=3.0, window=Windows(4, 2))
    assert not torch.allclose(torch.cat(list(other.frames()))[5:], made[5:], atol=1e-3), "the clip must matter"


def test_only_the_endless_method_takes_a_clip(pipeline):
    with pytest.raises(T2VError, match="endless"):
        Film(pipeline, "a red circle", method="windows", clip=torch.rand(5, 32, 32, 3))
