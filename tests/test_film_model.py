"""What a film needs of a model: the library's pipeline has it all, and nothing else is used."""

import inspect
from types import SimpleNamespace

import pytest
import torch

from t2v_models import Film
from t2v_models.errors import T2VError
from t2v_models.films.model import FilmModel, VideoCodec
from t2v_models.films.settings import METHODS
from t2v_models.pipeline import Pipeline

from .support.films import CALL, STORY, latents, small_pipeline

MEMBERS = [name for name in vars(FilmModel) if not name.startswith("_")]
METHOD_NAMES = [name for name in MEMBERS if inspect.isfunction(vars(FilmModel)[name])]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return small_pipeline(tmp_path_factory.mktemp("film"))


def test_pipeline_is_a_film_model_with_a_codec(pipeline):
    assert isinstance(pipeline, FilmModel)
    assert isinstance(pipeline, VideoCodec)


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_pipeline_methods_take_the_arguments_of_the_protocol(name):
    wanted, given = (inspect.signature(getattr(kind, name)).parameters for kind in (FilmModel, Pipeline))
    assert [each for each in given if given[each].default is inspect.Parameter.empty] == [
        each for each in wanted if wanted[each].default is inspect.Parameter.empty
    ]
    assert set(wanted) <= set(given)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_film_uses_no_member_of_its_model_but_the_protocols(pipeline, method, tmp_path):
    least = SimpleNamespace(**{name: getattr(pipeline, name) for name in MEMBERS})
    call = {**CALL, "frames": 9, "method": method}
    made = latents(Film(least, STORY, resume=tmp_path, **call))
    assert torch.equal(made, latents(Film(pipeline, STORY, **call)))


def test_frames_of_a_model_without_a_codec_are_refused(pipeline):
    least = SimpleNamespace(**{name: getattr(pipeline, name) for name in MEMBERS})
    with pytest.raises(T2VError, match=r"has no VAE: take a film's latents\(\)"):
        next(Film(least, STORY, frames=9, **CALL).frames())
