"""Long videos: every method makes every frame, is exact where it must be, and resumes to the same film."""

from dataclasses import replace

import pytest
import torch

from t2v_models import Film, load_pipeline
from t2v_models.errors import T2VError
from t2v_models.films.methods import continue_video
from t2v_models.films.settings import LOOPS, METHODS
from t2v_models.sampling.windows import Windows

from .support.films import CALL, STORY, latents, small_pipeline
from .support.model_folder import write_model_folder


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return small_pipeline(tmp_path_factory.mktemp("film"))


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
def test_film_no_longer_than_its_window_equals_the_pipelines_video(pipeline, method):
    film = Film(pipeline, STORY, frames=4, method=method, candidates=1, **CALL)
    noise = torch.randn(film.shape, generator=film.job.noise(0))
    call = {key: value for key, value in CALL.items() if key != "window"}
    video = pipeline(story=STORY, frames=4, **call, latents=noise, decode=False)
    ends_on_alpha = pipeline.schedule.config["set_alpha_to_one"]
    assert not ends_on_alpha  # the film ends on the clean latent, the reference schedule a little before
    assert (latents(film) - video.latents).abs().max() < 0.05 * video.latents.std()


@pytest.mark.parametrize("method", METHODS)
def test_seed_decides_the_film(pipeline, method):
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
def test_resumed_film_equals_an_uninterrupted_one(pipeline, method, stop, tmp_path):
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


@pytest.mark.parametrize(("frames", "frame_timesteps"), [(1, False), (4, True), (13, False), (13, True)])
@pytest.mark.parametrize(
    ("method", "looped"), [*((method, False) for method in METHODS), *((loop, True) for loop in LOOPS)]
)
def test_progress_is_reported_at_every_step_up_to_the_last_also_of_a_resumed_film(
    pipeline, method, looped, frame_timesteps, frames, tmp_path, monkeypatch
):
    monkeypatch.setattr(pipeline, "family", replace(pipeline.family, frame_timesteps=frame_timesteps))
    calls, reports = [], []
    forward = pipeline.unet.forward
    monkeypatch.setattr(
        pipeline.unet, "forward", lambda *args, **kw: calls.append(len(reports)) or forward(*args, **kw)
    )
    call = {
        **CALL,
        "window": Windows(min(4, frames), min(2, frames - 1), looped=looped),
        "frames": frames,
        "method": method,
        "resume": tmp_path,
        "progress": lambda *of: reports.append(of),
    }
    first = latents(Film(pipeline, STORY, **call))
    done, totals = zip(*reports, strict=True)
    assert list(done) == sorted(done)
    assert set(totals) == {done[-1]}
    assert max(calls.count(number) for number in calls) == 1, "progress is reported after every call"
    reports.clear()
    assert torch.equal(latents(Film(pipeline, STORY, **call)), first)
    assert reports[-1] == (totals[0], totals[0])


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_preview_shows_what_the_frames_become(pipeline, method):
    seen, counts = [], []
    watch = {"preview": seen.append, "progress": lambda done, total: counts.append(len(seen))}
    made = latents(Film(pipeline, "a red circle", frames=11, method=method, candidates=1, **watch, **CALL))
    assert torch.equal(made, latents(Film(pipeline, "a red circle", frames=11, method=method, candidates=1, **CALL)))
    assert counts[3] > 0, "the first preview comes soon"
    assert all(look.ndim == 5 and look.shape[1] == 4 and torch.isfinite(look).all() for look in seen)
    last = seen[-1][:1]
    parts = made.unfold(2, last.shape[2], 1).movedim(-1, 3).unbind(2)
    assert min(float((part - last).abs().max()) for part in parts) < 0.2, "the last preview equals the film"


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_finished_parts_stay_in_the_folder_until_finish_is_called(pipeline, tmp_path, method):
    folder, calls = tmp_path / "unfinished", []
    film = Film(pipeline, STORY, frames=11, method=method, resume=folder, **CALL)
    made = torch.cat(list(film.frames()))
    again = Film(pipeline, STORY, frames=11, method=method, resume=folder, **CALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.unet, "forward", lambda *args, **kwargs: calls.append(args))
        assert torch.equal(torch.cat(list(again.frames())), made)
    assert not calls, "a stored part was made again"
    film.finish()
    assert not folder.exists()


def test_film_with_nan_stops_at_once_and_stores_nothing(pipeline, tmp_path):
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
    monkeypatch.setattr("t2v_models.films.guided_model.together", lambda *shape: 1)
    assert torch.allclose(latents(Film(pipeline, STORY, frames=11, **CALL)), whole, atol=1e-4)


def test_folder_of_another_film_is_refused(pipeline, tmp_path):
    next(Film(pipeline, STORY, frames=5, resume=tmp_path, **CALL).latents())
    with pytest.raises(T2VError, match="other settings"):
        Film(pipeline, STORY, frames=6, resume=tmp_path, **CALL)
    with pytest.raises(T2VError, match="other settings"):
        Film(pipeline, STORY, frames=5, resume=tmp_path, fps=12, **CALL)


def test_folder_with_other_files_is_refused_and_they_stay(pipeline, tmp_path):
    (tmp_path / "lora.safetensors").write_bytes(b"not ours")
    with pytest.raises(T2VError, match="choose a new or empty folder"):
        Film(pipeline, STORY, **CALL, frames=8, resume=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["lora.safetensors"]


@pytest.mark.slow
def test_damaged_part_is_made_again(pipeline, tmp_path):
    film = Film(pipeline, STORY, **CALL, frames=11, method="coarse-to-fine", resume=tmp_path)
    wanted = latents(film)
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(b"")  # as a power cut leaves it
    assert torch.equal(
        latents(Film(pipeline, STORY, **CALL, frames=11, method="coarse-to-fine", resume=tmp_path)), wanted
    )


@pytest.mark.parametrize("change", ["schedule", "family"])
def test_film_is_not_resumed_with_another_noise_schedule_or_family(pipeline, tmp_path, monkeypatch, change):
    next(iter(Film(pipeline, STORY, **CALL, frames=8, resume=tmp_path).latents()))
    if change == "family":
        monkeypatch.setattr(pipeline, "family", replace(pipeline.family, frame_timesteps=True))
    else:
        monkeypatch.setattr(pipeline, "schedule", replace(pipeline.schedule, prediction_type="epsilon"))
    with pytest.raises(T2VError, match="other settings"):
        Film(pipeline, STORY, **CALL, frames=8, resume=tmp_path)


def test_short_continuation_is_denoised_in_windows_of_the_models_length(pipeline):
    call = {name: value for name, value in CALL.items() if name not in ("window", "width", "height")}
    film = Film(pipeline, STORY, clip=torch.rand(1, 32, 32, 3), frames=3, **call)
    assert film.job.settings.window.length == pipeline.defaults.frames > 4


@pytest.mark.slow
def test_film_is_not_resumed_with_another_model(pipeline, tmp_path):
    folders = [write_model_folder(tmp_path / name, prediction_type="v_prediction", seed=seed)
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
def test_loop_is_refused_by_methods_that_make_none(pipeline, method):
    with pytest.raises(T2VError, match=f"{method} makes no loop: choose windows or coarse-to-fine"):
        Film(pipeline, STORY, method=method, **{**CALL, "frames": 9, "window": Windows(4, 2, looped=True)})


def test_films_refuse_arguments_of_clips_and_clips_those_of_films(pipeline):
    with pytest.raises(T2VError, match="scheduler"):
        Film(pipeline, STORY, scheduler="euler", frames=9)
    with pytest.raises(T2VError, match="method"):
        pipeline(STORY, method="windows", frames=9)
    assert latents(Film(pipeline, STORY, method="windows", frames=9, **CALL)).shape == (1, 4, 9, 4, 4)


def test_gradients_stay_enabled_where_a_film_is_consumed(pipeline):
    for _ in Film(pipeline, "a red circle", frames=5, **CALL).frames():
        assert torch.is_grad_enabled()


def test_continued_clip_takes_its_noise_from_the_generator_only(pipeline):
    film = Film(pipeline, "a red circle", frames=4, **CALL)
    with torch.no_grad():
        model = film.job.guided_model()
    clip = torch.randn(1, 4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    runs = []
    with torch.no_grad():
        for _ in range(2):
            following = continue_video(model, clip, 4, torch.Generator().manual_seed(5))
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
def test_wrong_value_is_refused_with_the_wanted_one(pipeline, wrong, message):
    with pytest.raises(T2VError, match=message):
        list(Film(pipeline, "a red circle", **{**CALL, "frames": 9, **wrong}).latents())


def test_film_yields_frames_as_soon_as_they_are_finished(pipeline):
    parts = Film(pipeline, STORY, method="coarse-to-fine", frames=10, **CALL).frames()
    assert next(parts).shape[1:] == (32, 32, 3)
    assert sum(len(part) for part in parts) < 10


def test_continued_clip_stays_and_new_frames_depend_on_it(pipeline):
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
def test_clip_is_continued_by_at_least_one_frame(pipeline, frames):
    with pytest.raises(T2VError, match=f"frames is {frames}: at least 1"):
        Film(pipeline, "a red circle", frames=frames, clip=torch.rand(5, 32, 32, 3))
