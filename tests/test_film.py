"""Long videos: every method makes every frame, is exact where it must be, and can be stopped and taken up again."""

from dataclasses import replace

import pytest
import torch

from t2v_models import load_pipeline
from t2v_models.errors import T2VError
from t2v_models.film import LOOPS, METHODS, Film
from t2v_models.film_methods import _changes, continue_clip
from t2v_models.sampling.story import parse_story
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


@pytest.mark.parametrize(
    ("method", "stop"),
    [(method, stop) for method in ("windows", "free-noise") for stop in (2, 3, 4)]
    + [("coarse-to-fine", 5), ("endless", 5)]
    + [
        pytest.param(method, stop, marks=pytest.mark.slow)
        for method in ("coarse-to-fine", "endless")
        for stop in (6, 9)
    ],
)
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


@pytest.mark.parametrize(("frames", "frame_levels"), [(1, False), (4, True), (13, False), (13, True)])
@pytest.mark.parametrize(
    ("method", "looped"), [*((method, False) for method in METHODS), *((loop, True) for loop in LOOPS)]
)
def test_progress_is_told_at_every_step_up_to_the_last_in_a_film_that_is_gone_on_with_too(
    pipeline, method, looped, frame_levels, frames, tmp_path, monkeypatch
):
    monkeypatch.setattr(pipeline, "family", replace(pipeline.family, frame_levels=frame_levels))
    calls, told = [], []
    forward = pipeline.unet.forward
    monkeypatch.setattr(pipeline.unet, "forward", lambda *args, **kw: calls.append(len(told)) or forward(*args, **kw))
    call = {
        **CALL,
        "window": Windows(min(4, frames), min(2, frames - 1), looped=looped),
        "frames": frames,
        "method": method,
        "resume": tmp_path,
        "progress": lambda *of: told.append(of),
    }
    first = latents(Film(pipeline, STORY, **call))
    done, totals = zip(*told, strict=True)
    assert list(done) == sorted(done)
    assert set(totals) == {done[-1]}
    assert max(calls.count(number) for number in calls) == 1, "something is told after every call"
    told.clear()
    assert torch.equal(latents(Film(pipeline, STORY, **call)), first)
    assert told[-1] == (totals[0], totals[0])


@pytest.mark.parametrize("method", METHODS)
def test_a_film_shows_what_becomes_of_its_frames_while_it_is_made(pipeline, method):
    seen, told = [], []
    watch = {"preview": seen.append, "progress": lambda done, total: told.append(len(seen))}
    made = latents(Film(pipeline, "a red circle", frames=11, method=method, sketches=1, **watch, **CALL))
    assert torch.equal(made, latents(Film(pipeline, "a red circle", frames=11, method=method, sketches=1, **CALL)))
    assert told[3] > 0, "there is something to be seen soon"
    assert all(look.ndim == 5 and look.shape[1] == 4 and torch.isfinite(look).all() for look in seen)
    last = seen[-1][:1]
    parts = made.unfold(2, last.shape[2], 1).movedim(-1, 3).unbind(2)
    assert min(float((part - last).abs().max()) for part in parts) < 0.2, "at last, what is shown is what is made"


@pytest.mark.parametrize("method", METHODS)
def test_a_film_is_kept_until_its_frames_are_safe(pipeline, tmp_path, method):
    folder, calls = tmp_path / "unfinished", []
    film = Film(pipeline, STORY, frames=11, method=method, resume=folder, **CALL)
    made = torch.cat(list(film.frames()))
    again = Film(pipeline, STORY, frames=11, method=method, resume=folder, **CALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.unet, "forward", lambda *args, **kwargs: calls.append(args))
        assert torch.equal(torch.cat(list(again.frames())), made)
    assert not calls, "something was made again"
    film.finish()
    assert not folder.exists()


def test_a_film_that_breaks_says_so_at_once_and_keeps_nothing_broken(pipeline, tmp_path):
    def broken(x, timesteps, context, **kwargs):
        return torch.full((len(context), *x.shape[1:]), torch.nan)

    film = Film(pipeline, STORY, frames=11, resume=tmp_path, **CALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.unet, "forward", broken)
        with pytest.raises(T2VError, match="NaN"):
            next(film.frames())
    assert not list(tmp_path.glob("*.safetensors"))


def test_large_clips_go_through_the_model_one_by_one(pipeline, monkeypatch):
    whole = latents(Film(pipeline, STORY, frames=11, **CALL))
    monkeypatch.setattr("t2v_models.film_methods.together", lambda *shape: 1)
    assert torch.allclose(latents(Film(pipeline, STORY, frames=11, **CALL)), whole, atol=1e-4)


def test_the_folder_of_another_film_is_refused(pipeline, tmp_path):
    next(Film(pipeline, STORY, frames=5, resume=tmp_path, **CALL).latents())
    with pytest.raises(T2VError, match="other settings"):
        Film(pipeline, STORY, frames=6, resume=tmp_path, **CALL)
    with pytest.raises(T2VError, match="other settings"):
        Film(pipeline, STORY, frames=5, resume=tmp_path, fps=12, **CALL)


def test_a_film_that_another_model_began_is_not_gone_on_with(pipeline, tmp_path):
    folders = [write_diffusers_folder(tmp_path / name, prediction="v_prediction", seed=seed)
               for name, seed in (("same", 0), ("other", 1))]  # fmt: skip
    next(Film(pipeline, STORY, frames=5, resume=tmp_path / "film", **CALL).latents())
    Film(load_pipeline(folders[0]), STORY, frames=5, resume=tmp_path / "film", **CALL)
    with pytest.raises(T2VError, match="other settings"):
        Film(load_pipeline(folders[1]), STORY, frames=5, resume=tmp_path / "film", **CALL)
    merged = load_pipeline(folders[0])
    merged.unet.get_submodule("middle_block.0.in_layers.2").weight.mul_(1.01)
    with pytest.raises(T2VError, match="other settings"):
        Film(merged, STORY, frames=5, resume=tmp_path / "film", **CALL)


@pytest.mark.parametrize("method", ["free-noise", "endless"])
def test_what_makes_no_loop_says_so(pipeline, method):
    with pytest.raises(T2VError, match=f"{method} makes no loop: choose windows or coarse-to-fine"):
        Film(pipeline, STORY, method=method, **{**CALL, "frames": 9, "window": Windows(4, 2, looped=True)})


def test_what_films_do_not_take_is_refused_and_their_latents_are_had_undecoded(pipeline):
    with pytest.raises(T2VError, match="no scheduler and no strength"):
        pipeline(STORY, method="windows", scheduler="euler", strength=0.5, frames=9)
    with pytest.raises(T2VError, match="2 prompts"):
        pipeline(["a", "b"], method="windows", frames=9)
    call = {**CALL, "windows": CALL["window"], "frames": 9, "decode": False}
    del call["window"]
    assert torch.cat(list(pipeline(STORY, method="windows", **call)), dim=2).shape == (1, 4, 9, 4, 4)


def test_a_consumer_of_a_film_keeps_its_gradients(pipeline):
    for _ in Film(pipeline, "a red circle", frames=5, **CALL).frames():
        assert torch.is_grad_enabled()


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
    found = _changes(parse_story(story, 64, 8), 16)
    assert found == changes


def test_key_frames_are_the_ends_of_what_lies_between(pipeline):
    film = Film(pipeline, "a red circle", frames=10, method="coarse-to-fine", **CALL)
    kept = {}
    film.store.once = lambda name, make: kept.setdefault(name, make())
    made = latents(film)
    keys = kept["keys"]
    assert keys.shape[2] == 4
    assert torch.equal(made[:, :, ::3], keys)


@pytest.mark.parametrize(
    ("frames", "story"), [(4, "a"), (5, "a"), (7, "a"), (9, "a"), (9, STORY), (11, "a"), (60, "a")]
)
def test_a_loop_of_any_length_is_filled_in_around_key_frames_that_see_each_other_over_the_end(
    pipeline, frames, story, monkeypatch
):
    seen = []
    forward = pipeline.unet.forward
    monkeypatch.setattr(pipeline.unet, "forward", lambda x, *args, **kw: seen.append(x) or forward(x, *args, **kw))
    call = {"method": "coarse-to-fine", "sketches": 1, **CALL, "window": Windows(4, 2, looped=True)}
    film, kept = Film(pipeline, story, frames=frames, **call), {}
    film.store.once = lambda name, make: kept.setdefault(name, make())
    made = latents(film)
    assert made.shape[2] == frames
    keys = kept["keys"]
    count = keys.shape[2]
    done_again = {name for name in kept if name.startswith("change")}
    assert bool(done_again) == (story == STORY)
    if not done_again:
        assert torch.equal(made[:, :, [i * frames // count for i in range(count)]], keys)
    rings = [torch.tensor([round(float(value), 5) for value in x[0, 0, :, 0, 0]]) for x in seen[:2]]
    assert sorted(rings[0].tolist()) == sorted(rings[1].tolist())
    assert not torch.equal(*rings), "the same key frames, begun elsewhere"


def test_of_several_sketches_the_steadiest_becomes_the_key_frames(pipeline, monkeypatch):
    seen = []

    def second(clips):
        seen.append(clips)
        return torch.tensor([2.0, 1.0, 3.0])[: len(clips)]

    def keys(sketches):
        settings = {"method": "coarse-to-fine", "sketches": sketches}
        film, kept = Film(pipeline, "a red circle", frames=10, **settings, **CALL), {}
        film.store.once = lambda name, make: kept.setdefault(name, make())
        latents(film)
        return kept["keys"]

    monkeypatch.setattr("t2v_models.film_methods.unsteadiness", second)
    three, one = keys(3), keys(1)
    assert [len(clips) for clips in seen] == [3, 1]
    assert torch.equal(three, seen[0][1:2])
    assert torch.allclose(one, seen[0][:1], atol=1e-4), "the first sketch is the only one of a film that has no more"
    assert not torch.allclose(three, one, atol=0.1)
    with pytest.raises(T2VError, match="0 sketches"):
        Film(pipeline, "a red circle", frames=10, sketches=0, **CALL)


@pytest.mark.slow
def test_what_lies_around_a_change_of_scene_is_done_again_between_frames_that_stay(pipeline, monkeypatch):
    story = "0-7f: a red circle\n7f-12f: a blue square\n12f-16f: a red square"

    def made(story=story):
        film, kept = Film(pipeline, story, frames=16, method="coarse-to-fine", **CALL), {}
        film.store.once = lambda name, make: kept.setdefault(name, make())
        return latents(film), kept

    film, kept = made()
    changes = {name: clip for name, clip in kept.items() if name.startswith("change")}
    assert {name: clip.shape[2] for name, clip in changes.items()} == {"change-from-5": 4, "change-from-10": 4}
    assert not any(name.startswith("change") for name in made("a red circle")[1])
    monkeypatch.setattr("t2v_models.film_methods._changes", lambda story, window: [])
    before, _ = made()
    for first in (5, 10):
        assert torch.equal(film[:, :, first : first + 4], changes[f"change-from-{first}"])
        assert torch.equal(film[:, :, [first, first + 3]], before[:, :, [first, first + 3]])
        assert not torch.equal(film[:, :, first + 1 : first + 3], before[:, :, first + 1 : first + 3])


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
        ({"fps": 0}, "frame rate 0"),
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


def hear(pipeline, monkeypatch):
    """The list that the texts go to from now on, of a model that knows words for paces."""
    heard = []
    monkeypatch.setattr(pipeline, "family", replace(pipeline.family, pace=("slowly", "fast")))
    encode = pipeline.encode_text
    monkeypatch.setattr(pipeline, "encode_text", lambda texts: heard.append(texts) or encode(texts))
    return heard


@pytest.mark.parametrize(
    ("frames", "window", "strides", "paces"),
    [
        (10, Windows(4, 2), (3, 1), ("fast ", "")),
        (46, Windows(10, 5), (5, 1), ("fast ", "slowly ")),
        (40, Windows(8, 4), (7, 1), ("fast ", "slowly ")),
        (28, Windows(4, 2), (9, 3, 1), ("fast ", "", "slowly ")),
    ],
)
def test_key_frames_are_told_to_move_fast_what_lies_near_as_usual_and_what_lies_far_between_slowly(
    pipeline, monkeypatch, frames, window, strides, paces
):
    heard = hear(pipeline, monkeypatch)
    call = {**CALL, "window": window}
    film = Film(pipeline, "a red circle moves right", frames=frames, method="coarse-to-fine", fps=63, **call)
    list(film.latents())
    assert [texts[1] for texts in heard if len(texts) > 1] == [f"{pace}a red circle moves right" for pace in paces]
    assert [film.denoiser(stride=stride).fps for stride in strides] == [63 / stride for stride in strides]


def test_around_a_change_of_scene_things_go_at_the_pace_of_what_lies_between_key_frames(pipeline, monkeypatch):
    heard = hear(pipeline, monkeypatch)
    story = "0-8f: a red circle moves right\n8f-19f: a red circle moves up"
    film = Film(pipeline, story, frames=19, method="coarse-to-fine", **{**CALL, "window": Windows(4, 2)})
    list(film.latents())
    told = [text for texts in heard for text in texts if "up" in text]
    assert told == [f"{pace}a red circle moves up" for pace in ("fast ", "", "slowly ")]


@pytest.mark.slow
def test_a_model_that_takes_known_frames_clean_is_guided_at_key_frames_only(pipeline, monkeypatch):
    def made(frame_levels, guidance_scale):
        monkeypatch.setattr(pipeline, "family", replace(pipeline.family, frame_levels=frame_levels))
        call = {**CALL, "guidance_scale": guidance_scale, "frames": 19, "method": "coarse-to-fine"}
        film, kept = Film(pipeline, "0-8f: a red circle\n8f-19f: a blue square", **call), {}
        # the same key frames for all: what lies between them is compared
        film.store.once = lambda name, make: kept.setdefault(name, keys if name == "keys" else make())
        return latents(film), make_keys(film)

    def make_keys(film):
        found = []
        film.store.once = lambda name, make: found.append(make()) or found[-1]
        next(film.latents())
        return found[0]

    keys = torch.randn(1, 4, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    for frame_levels, same in ((True, True), (False, False)):
        (guided, guided_keys), (plain, plain_keys) = (made(frame_levels, scale) for scale in (3.0, 1.0))
        assert torch.equal(guided, plain) == same
        assert not torch.allclose(guided_keys, plain_keys, atol=1e-3)


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


@pytest.mark.parametrize("frames", [0, -2])
def test_a_clip_is_gone_on_with_by_one_frame_at_least(pipeline, frames):
    with pytest.raises(T2VError, match=f"frames is {frames}: at least 1"):
        Film(pipeline, "a red circle", frames=frames, clip=torch.rand(5, 32, 32, 3))
