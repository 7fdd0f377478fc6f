"""Films that begin with a picture."""

from dataclasses import replace

import pytest
import torch

from t2v_models import Film
from t2v_models.errors import T2VError
from t2v_models.films.settings import LOOPS, METHODS
from t2v_models.sampling.windows import Windows

from .support.films import CALL, STORY, latents, small_pipeline

PICTURE = torch.rand(32, 32, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return small_pipeline(tmp_path_factory.mktemp("film"))


@pytest.fixture(params=[False, True], ids=["noisy frames", "clean frames"])
def model(pipeline, request, monkeypatch):
    """A model that knows one timestep for all frames, and one that knows a timestep for each."""
    monkeypatch.setattr(pipeline, "family", replace(pipeline.family, frame_timesteps=request.param))
    return pipeline


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("frames", [1, 9])
def test_first_frame_has_the_pictures_latent_exactly(model, method, frames):
    call = CALL if frames > 1 else {**CALL, "window": None}
    reports = []
    film = Film(
        model,
        STORY,
        frames=frames,
        method=method,
        image=PICTURE,
        candidates=2,
        progress=lambda *report: reports.append(report),
        **call,
    )
    made = latents(film)
    assert made.shape[2] == frames
    assert torch.equal(made[:, :, :1], model.encode_video(PICTURE[None, None]))
    assert reports[-1][0] == reports[-1][1], "the work that was announced is the work that was done"
    if frames > 1:
        without = latents(Film(model, STORY, frames=frames, method=method, candidates=2, **call))
        assert not torch.allclose(made[:, :, 1:], without[:, :, 1:], atol=1e-3), "the other frames follow the picture"


@pytest.mark.slow
@pytest.mark.parametrize("method", LOOPS)
def test_loop_begins_with_the_picture(model, method):
    call = {**CALL, "window": Windows(4, 2, looped=True)}
    reports = []
    film = Film(
        model, STORY, frames=9, method=method, image=PICTURE, progress=lambda *report: reports.append(report), **call
    )
    assert torch.equal(latents(film)[:, :, :1], model.encode_video(PICTURE[None, None]))
    assert reports[-1][0] == reports[-1][1]


class Stop(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("method", ["windows", "coarse-to-fine", "endless"])
def test_film_from_a_picture_resumes_to_the_same_film_and_not_to_that_of_another(model, method, tmp_path):
    call = {**CALL, "frames": 9, "method": method, "image": PICTURE}
    whole = latents(Film(model, STORY, **call))

    def stop(done, total):
        if 3 * done > 2 * total:
            raise Stop

    with pytest.raises(Stop):
        latents(Film(model, STORY, resume=tmp_path / "parts", progress=stop, **call))
    assert torch.equal(latents(Film(model, STORY, resume=tmp_path / "parts", **call)), whole)
    with pytest.raises(T2VError, match="unfinished film"):
        Film(model, STORY, resume=tmp_path / "parts", **{**call, "image": 1 - PICTURE})


def test_film_leads_on_from_its_picture_and_says_where_it_does_not(pipeline, caplog):
    call = {key: value for key, value in CALL.items() if key != "window"}
    assert Film(pipeline, STORY, frames=40, image=PICTURE, **call).method == "coarse-to-fine"
    assert not caplog.records
    Film(pipeline, STORY, frames=40, image=PICTURE, method="windows", **call)
    assert "only the film's first window sees the picture" in caplog.text


def test_picture_of_another_size_is_fitted_and_a_wrong_one_refused(pipeline):
    call = {**CALL, "frames": 4}
    wide = torch.cat([PICTURE] * 2, dim=1)
    made = latents(Film(pipeline, STORY, image=wide, image_fit="stretch", **call))
    cut = latents(Film(pipeline, STORY, image=wide, **call))
    assert made.shape == cut.shape == (1, 4, 4, 4, 4)
    assert not torch.equal(made[:, :, 0], cut[:, :, 0])
    with pytest.raises(T2VError, match="way to fit"):
        Film(pipeline, STORY, image=PICTURE, image_fit="tile", **call)
    with pytest.raises(T2VError, match="RGBA"):
        Film(pipeline, STORY, image=torch.rand(32, 32, 4), **call)
    with pytest.raises(T2VError, match="clip to continue and a picture"):
        Film(pipeline, STORY, image=PICTURE, clip=PICTURE[None], frames=4)
