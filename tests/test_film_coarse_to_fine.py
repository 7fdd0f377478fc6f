"""Films from coarse to fine: key frames and their candidates, loops, changes of scene, speed and guidance."""

from dataclasses import replace

import pytest
import torch

from t2v_models import Film
from t2v_models.errors import T2VError
from t2v_models.films.coarse_to_fine import scene_changes
from t2v_models.sampling.story import parse_story
from t2v_models.sampling.windows import Windows

from .support.films import CALL, STORY, latents, small_pipeline


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return small_pipeline(tmp_path_factory.mktemp("film"))


@pytest.mark.parametrize(
    ("story", "changes"),
    [
        ("0-16f: a / 16f-32f: b / 32f-64f: c", [(8, 24), (24, 40)]),
        ("32f-64f: c / 0-16f: a / 16f-32f: b", [(8, 24), (24, 40)]),
        ("0-20f: a / 16f-60f: b / 56f-64f: c", [(12, 28), (58, 62)]),
        ("0-3f: a / 3f-4f: b / 4f-64f: c", []),
        ("a", []),
    ],
)
def test_clips_around_changes_of_scene_are_in_order_and_apart(story, changes):
    found = scene_changes(parse_story(story, 64, 8), 16)
    assert found == changes


def test_key_frames_are_frames_of_the_film(pipeline):
    film = Film(pipeline, "a red circle", frames=10, method="coarse-to-fine", **CALL)
    kept = {}
    film.job.store.once = lambda name, make: kept.setdefault(name, make())
    made = latents(film)
    keys = kept["keys"]
    assert keys.shape[2] == 4
    assert torch.equal(made[:, :, ::3], keys)


@pytest.mark.parametrize(
    ("frames", "story"),
    [(4, "a"), (5, "a"), (7, "a"), (9, "a"), (9, STORY), (11, "a"), pytest.param(60, "a", marks=pytest.mark.slow)],
)
def test_loop_of_any_length_is_filled_in_between_key_frames_that_form_a_ring(pipeline, frames, story, monkeypatch):
    seen = []
    forward = pipeline.unet.forward
    monkeypatch.setattr(pipeline.unet, "forward", lambda x, *args, **kw: seen.append(x) or forward(x, *args, **kw))
    call = {"method": "coarse-to-fine", "candidates": 1, **CALL, "window": Windows(4, 2, looped=True)}
    film, kept = Film(pipeline, story, frames=frames, **call), {}
    film.job.store.once = lambda name, make: kept.setdefault(name, make())
    made = latents(film)
    assert made.shape[2] == frames
    keys = kept["keys"]
    count = keys.shape[2]
    regenerated = {name for name in kept if name.startswith("change")}
    assert bool(regenerated) == (story == STORY)
    if not regenerated:
        assert torch.equal(made[:, :, [i * frames // count for i in range(count)]], keys)
    rings = [torch.tensor([round(float(value), 5) for value in x[0, 0, :, 0, 0]]) for x in seen[:2]]
    assert sorted(rings[0].tolist()) == sorted(rings[1].tolist())
    assert not torch.equal(*rings), "windows of the ring begin elsewhere at the next step"


def test_steadiest_candidate_becomes_the_key_frames(pipeline, monkeypatch):
    seen = []

    def second(clips):
        seen.append(clips)
        return torch.tensor([2.0, 1.0, 3.0])[: len(clips)]

    def keys(candidates):
        settings = {"method": "coarse-to-fine", "candidates": candidates}
        film, kept = Film(pipeline, "a red circle", frames=10, **settings, **CALL), {}
        film.job.store.once = lambda name, make: kept.setdefault(name, make())
        latents(film)
        return kept["keys"]

    monkeypatch.setattr("t2v_models.films.coarse_to_fine.motion_jump_ratio", second)
    three, one = keys(3), keys(1)
    assert [len(clips) for clips in seen] == [3, 1]
    assert torch.equal(three, seen[0][1:2])
    assert torch.allclose(one, seen[0][:1], atol=1e-4), "the first candidate is the only one of a film that has no more"
    assert not torch.allclose(three, one, atol=0.1)
    with pytest.raises(T2VError, match="0 candidates"):
        Film(pipeline, "a red circle", frames=10, candidates=0, **CALL)


@pytest.mark.slow
def test_changes_of_scene_are_regenerated_between_frames_that_stay(pipeline, monkeypatch):
    story = "0-7f: a red circle\n7f-12f: a blue square\n12f-16f: a red square"

    def made(story=story):
        film, kept = Film(pipeline, story, frames=16, method="coarse-to-fine", **CALL), {}
        film.job.store.once = lambda name, make: kept.setdefault(name, make())
        return latents(film), kept

    film, kept = made()
    changes = {name: clip for name, clip in kept.items() if name.startswith("change")}
    assert {name: clip.shape[2] for name, clip in changes.items()} == {"change-from-5": 4, "change-from-10": 4}
    assert not any(name.startswith("change") for name in made("a red circle")[1])
    monkeypatch.setattr("t2v_models.films.coarse_to_fine.scene_changes", lambda story, window: [])
    before, _ = made()
    for first in (5, 10):
        assert torch.equal(film[:, :, first : first + 4], changes[f"change-from-{first}"])
        assert torch.equal(film[:, :, [first, first + 3]], before[:, :, [first, first + 3]])
        assert not torch.equal(film[:, :, first + 1 : first + 3], before[:, :, first + 1 : first + 3])


def hear(pipeline, monkeypatch):
    """The list that the texts go to from now on, of a model that has learned words for speeds."""
    heard = []
    monkeypatch.setattr(pipeline, "family", replace(pipeline.family, speed_words=("slowly", "fast")))
    encode = pipeline.encode_text
    monkeypatch.setattr(pipeline, "encode_text", lambda texts: heard.append(texts) or encode(texts))
    return heard


@pytest.mark.slow
@pytest.mark.parametrize(
    ("frames", "window", "strides", "speeds"),
    [
        (10, Windows(4, 2), (3, 1), ("fast ", "")),
        (46, Windows(10, 5), (5, 1), ("fast ", "slowly ")),
        (40, Windows(8, 4), (7, 1), ("fast ", "slowly ")),
        (28, Windows(4, 2), (9, 3, 1), ("fast ", "", "slowly ")),
    ],
)
def test_key_frames_are_asked_to_move_fast_short_gaps_as_usual_and_long_gaps_slowly(
    pipeline, monkeypatch, frames, window, strides, speeds
):
    heard = hear(pipeline, monkeypatch)
    call = {**CALL, "window": window}
    film = Film(pipeline, "a red circle moves right", frames=frames, method="coarse-to-fine", fps=63, **call)
    list(film.latents())
    assert [texts[1] for texts in heard if len(texts) > 1] == [f"{speed}a red circle moves right" for speed in speeds]
    assert [film.job.guided_model(stride=stride).fps for stride in strides] == [63 / stride for stride in strides]


@pytest.mark.slow
def test_clips_around_a_change_of_scene_have_the_speed_word_of_the_finest_gaps(pipeline, monkeypatch):
    heard = hear(pipeline, monkeypatch)
    story = "0-8f: a red circle moves right\n8f-19f: a red circle moves up"
    film = Film(pipeline, story, frames=19, method="coarse-to-fine", **{**CALL, "window": Windows(4, 2)})
    list(film.latents())
    texts = [text for texts in heard for text in texts if "up" in text]
    assert texts == [f"{speed}a red circle moves up" for speed in ("fast ", "", "slowly ")]


@pytest.mark.slow
def test_model_with_clean_known_frames_is_guided_at_key_frames_only(pipeline, monkeypatch):
    def made(frame_timesteps, guidance_scale):
        monkeypatch.setattr(pipeline, "family", replace(pipeline.family, frame_timesteps=frame_timesteps))
        call = {**CALL, "guidance_scale": guidance_scale, "frames": 19, "method": "coarse-to-fine"}
        film, kept = Film(pipeline, "0-8f: a red circle\n8f-19f: a blue square", **call), {}
        # the same key frames for all: what lies between them is compared
        film.job.store.once = lambda name, make: kept.setdefault(name, keys if name == "keys" else make())
        return latents(film), make_keys(film)

    def make_keys(film):
        found = []
        film.job.store.once = lambda name, make: found.append(make()) or found[-1]
        next(film.latents())
        return found[0]

    keys = torch.randn(1, 4, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    for frame_timesteps, same in ((True, True), (False, False)):
        (guided, guided_keys), (plain, plain_keys) = (made(frame_timesteps, scale) for scale in (3.0, 1.0))
        assert torch.equal(guided, plain) == same
        assert not torch.allclose(guided_keys, plain_keys, atol=1e-3)
