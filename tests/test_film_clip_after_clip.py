"""Films of models that make clips of pictures: clip after clip, each from the last frame of the one before."""

import numpy as np
import pytest
import torch
from PIL import Image

from t2v_models import Film, load_pipeline
from t2v_models.__main__ import main
from t2v_models.errors import T2VError
from t2v_models.sampling.story import parse_story
from t2v_models.video import VideoReader
from tests.references.image_runs import picture
from tests.references.parity import difference
from tests.support.image_models import write_model

FIRST, LAST = picture("first"), picture("last")
CALL = {"width": 64, "height": 32, "steps": 2, "seed": 5, "image": FIRST}
FAMILIES = ("dynamicrafter-256", "videocrafter1-i2v")


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    return write_model(tmp_path_factory.mktemp(request.param), request.param), request.param


@pytest.fixture(scope="module")
def model(folder):
    return load_pipeline(folder[0], family=folder[1])


def latents(film) -> torch.Tensor:
    return torch.cat(list(film.latents()), dim=2)


@pytest.mark.slow
def test_each_clip_is_the_models_own_from_the_last_frame_of_the_one_before(model):
    made = latents(Film(model, "a red circle", "text", frames=40, **CALL))
    assert made.shape == (1, 4, 40, 4, 8)
    image, clips = FIRST, []
    for number, count in enumerate((16, 15, 9)):
        call = {**CALL, "seed": 5 + number, "image": image, "frames": 16}
        clip = model("a red circle", "text", **call)
        clips.append(clip.latents[:, :, int(number > 0) :][:, :, :count])
        image = clip.frames[0, -1]
    assert difference(made, torch.cat(clips, dim=2)) < 1e-4
    assert difference(latents(Film(model, "a red circle", "text", frames=40, **{**CALL, "image": LAST})), made) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(("frames", "clips"), [(1, 1), (16, 1), (17, 2), (31, 2), (32, 3)])
def test_a_film_of_any_length_has_its_frames_and_reports_all_its_work(model, frames, clips):
    reports, shown = [], []
    film = Film(
        model, "a red circle", frames=frames, progress=lambda *each: reports.append(each), preview=shown.append, **CALL
    )
    assert sum(map(len, film.frames())) == frames
    assert reports == [(done, 2 * clips) for done in range(1, 2 * clips + 1)]
    assert [tuple(each.shape) for each in shown] == [(1, 4, 16, 4, 8)] * clips


@pytest.mark.slow
def test_a_scene_changes_the_clips_that_it_reaches_and_no_earlier_one(model):
    one, other = (
        latents(Film(model, f"0-20f: a red circle / 20-40f: {text}", frames=40, **CALL))
        for text in ("a blue square", "the circle moves")
    )
    assert torch.equal(one[:, :, :16], other[:, :, :16])
    assert difference(one[:, :, 16:], other[:, :, 16:]) > 1e-4


class Stop(Exception):
    pass


@pytest.mark.slow
def test_a_stopped_film_becomes_the_same_film_and_not_that_of_another_picture(model, tmp_path):
    whole, calls = latents(Film(model, "a red circle", frames=40, **CALL)), []

    def stop(done, total):
        if done == 5:
            raise Stop

    with pytest.raises(Stop):
        latents(Film(model, "a red circle", frames=40, resume=tmp_path, progress=stop, **CALL))
    again = Film(model, "a red circle", frames=40, resume=tmp_path, progress=lambda *each: calls.append(each), **CALL)
    assert torch.equal(latents(again), whole)
    assert calls == [(2, 6), (4, 6), (5, 6), (6, 6)]
    with pytest.raises(T2VError, match="unfinished film"):
        Film(model, "a red circle", frames=40, resume=tmp_path, **{**CALL, "image": LAST})


@pytest.mark.slow
def test_motion_is_the_films_fps_condition_and_not_its_rate(model):
    made = latents(Film(model, "a red circle", frames=16, **CALL))
    assert torch.equal(latents(Film(model, "a red circle", frames=16, fps=3, **CALL)), made)
    other = latents(Film(model, "a red circle", frames=16, fps_condition=1, **CALL))
    assert (difference(other, made) > 1e-4) == model.config.fps_embedding


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"image": None}, "give one by image="),
        ({"image": None, "clip": torch.zeros(16, 32, 64, 3)}, "give one by image="),
        ({"method": "windows"}, "made by 'clip-after-clip' only"),
        ({"method": "magic"}, "'magic' is not known"),
        ({"image": np.zeros((9, 12, 4), np.uint8)}, "RGBA"),
    ],
)
def test_what_such_a_film_cannot_be_is_one_sentence(model, given, said):
    given = {**CALL, "frames": 20, **given}
    if "clip" in given:
        del given["width"], given["height"]
    with pytest.raises(T2VError, match=said) as error:
        Film(model, "a red circle", **given)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_model_that_goes_between_two_pictures_makes_no_film_of_one(tmp_path):
    family = "dynamicrafter-512-interp"
    with pytest.raises(T2VError, match="between two pictures"):
        Film(load_pipeline(write_model(tmp_path, family), family=family), "a red circle", frames=20, **CALL)


@pytest.mark.slow
def test_the_command_makes_a_film_of_a_picture_and_a_story(folder, tmp_path, capsys):
    path, family = folder
    Image.fromarray(FIRST).save(tmp_path / "first.png")
    (tmp_path / "story.txt").write_text("0-50%: a red circle\n50%-100%: a blue square\n")
    arguments = ["generate", "--story", str(tmp_path / "story.txt"), "--image", str(tmp_path / "first.png")]
    arguments += ["--frames", "20", "--size", "64x32", "--steps", "1", "--model", str(path), "--family", family]
    arguments += ["--output", str(tmp_path / "film.mkv")]
    assert main([*arguments, "--resume"]) == 0
    assert len(list(VideoReader(tmp_path / "film.mkv"))) == 20
    for more, said in (
        (["--method", "windows"], "made by 'clip-after-clip' only"),
        (["--loop"], "makes no loop"),
        (["--candidates", "2"], "no key frames"),
    ):
        assert main([*arguments, *more]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("first", [0, 5, 14, 30])
def test_a_part_of_a_story_has_the_contexts_of_its_frames_and_the_last_one_past_the_end(first):
    text = "0-12f: a / 12-20f, fade 4f: b / 20-40f, fade 6f, weight 1.5: c / 3-30f, negative: d / 10-40f, negative: e"
    whole, part = parse_story(text, 40, 8.0), parse_story(text, 40, 8.0).part(first, 16)
    numbers = torch.arange(16)[None]

    def encode(texts):
        return torch.stack([torch.full((2, 3), float(sum(map(ord, each)))) for each in texts])

    for negative in (False, True):
        found = part.encode(encode, negative=negative).at(numbers)
        wanted = whole.encode(encode, negative=negative).at(numbers + first)
        torch.testing.assert_close(found, wanted)
