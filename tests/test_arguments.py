"""Arguments of clips and films: what people pass to other libraries is converted, or refused by name in one sentence."""

from fractions import Fraction
from functools import partial
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from t2v_models import Film, load_pipeline
from t2v_models.arguments import check_memory, real_number, whole_number
from t2v_models.arrays import finite_tensor, pixels
from t2v_models.errors import T2VError
from t2v_models.families import Defaults
from t2v_models.request import ClipRequest
from t2v_models.sampling.scenes import MOST_TOKENS
from t2v_models.unet import PRESETS

NAN, INFINITE = float("nan"), float("inf")
MODEL = SimpleNamespace(
    defaults=Defaults(frames=4, width=64, height=48, fps=8, steps=7, guidance_scale=5.0, scheduler="euler"),
    config=PRESETS["modelscope"],
    family=SimpleNamespace(guidance_rescale=0.0, eta=0.0),
)
FRAMES = np.random.default_rng(0).integers(0, 256, (4, 48, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def pipeline():
    return load_pipeline("built-in")


def ask(prompt="a", negative="", **options):
    return ClipRequest.of_prompts(MODEL, prompt, negative, **options)


@pytest.mark.parametrize("make", [int, np.int64, np.int32, np.uint8, np.array, torch.tensor, float, np.float64])
def test_whole_numbers_of_any_library_are_those_of_python(make):
    asked = ask(frames=make(4), width=make(64), height=make(48), steps=make(3), seed=make(9))
    assert asked.shape == (1, 4, 4, 6, 8)
    assert [type(value) for value in (asked.shape[2], asked.steps, asked.seed)] == [int] * 3


@pytest.mark.parametrize("make", [float, np.float32, np.float64, np.array, torch.tensor])
def test_fractions_of_any_library_are_those_of_python(make):
    asked = ask(
        guidance_scale=make(2.5), eta=make(0.5), guidance_rescale=make(0.25), strength=make(0.75), fps=make(12.5)
    )
    values = (asked.guidance_scale, asked.eta, asked.guidance_rescale, asked.strength, asked.fps)
    assert values == (2.5, 0.5, 0.25, 0.75, 12.5)
    assert {type(value) for value in values} == {float}


@pytest.mark.parametrize("name", ["guidance_rescale", "eta", "strength"])
@pytest.mark.parametrize(
    "value", [5, -0.1, 1.01, NAN, INFINITE, -INFINITE, "0.5", None, [0.5], np.float64("nan"), 1e300]
)
def test_share_outside_0_to_1_is_refused_by_name(name, value):
    if value is None and name != "strength":
        return  # the model's default
    with pytest.raises(T2VError, match=rf"^{name} is "):
        ask(**{name: value})


@pytest.mark.parametrize("name", ["frames", "width", "height", "steps", "seed"])
@pytest.mark.parametrize("value", [1.5, NAN, INFINITE, "16", [16], np.array([1, 2]), torch.tensor(0.5), object(), 1j])
def test_what_is_no_whole_number_is_refused_by_name(name, value):
    with pytest.raises(T2VError, match=rf"^{name} is .*whole number"):
        ask(**{name: value})


@pytest.mark.parametrize("value", [NAN, INFINITE, "7", [7], None, object(), 1j])
def test_what_is_no_finite_number_is_refused_by_name(value):
    with pytest.raises(T2VError, match=r"^it is .*finite number"):
        real_number(value, "it")
    if value is not None:
        with pytest.raises(T2VError, match="guidance scale"):
            ask(guidance_scale=value)
        with pytest.raises(T2VError, match="frame rate"):
            ask(fps=value if value != "7" else "seven")


def test_a_frame_rate_may_be_a_fraction_and_true_is_one():
    assert ask(fps=Fraction(30000, 1001)).fps == Fraction(30000, 1001)
    assert whole_number(True, "seed") == 1


@pytest.mark.parametrize("nothing", [None, "", [None], [""]])
def test_none_is_no_text(nothing):
    assert ask(nothing, nothing).prompts == ask(nothing, nothing).negatives == ("",)


@pytest.mark.parametrize("text", [5, b"a", {"a": 1}, [5], [b"a"], "a\0b", ["a\ud800"], "x" * 100_000, object()])
@pytest.mark.parametrize("which", ["prompt", "negative"])
def test_what_is_no_prompt_is_refused(text, which):
    with pytest.raises(T2VError, match="prompt"):
        ask(**{which: text})


@pytest.mark.parametrize("story", [5, b"a", ["a"], "a\0b", "a \udcff"])
def test_what_is_no_story_is_refused(story, pipeline):
    with pytest.raises(T2VError, match=r"^The story "):
        ask("", story=story)
    with pytest.raises(T2VError, match=r"^The story "):
        Film(pipeline, story)


def test_prompt_and_story_together_are_refused():
    with pytest.raises(T2VError, match="A prompt and a story"):
        ask("a", story="b")


@pytest.mark.parametrize(
    "video",
    [
        FRAMES[None],
        torch.from_numpy(FRAMES)[None],
        list(FRAMES),
        [Image.fromarray(frame) for frame in FRAMES],
        [[Image.fromarray(frame) for frame in FRAMES]],
        [torch.from_numpy(frame) for frame in FRAMES],
        (FRAMES[None] / 255).astype(np.float32),
        FRAMES[None] / 255,
        np.asfortranarray(FRAMES[None]),
        FRAMES[None, :, :, ::-1][:, :, :, ::-1],
    ],
)
def test_video_of_any_library_and_of_bytes_is_floats_from_0_to_1(video):
    asked = ask(video=video)
    assert asked.video.dtype == torch.float32
    assert torch.allclose(asked.video, torch.from_numpy(FRAMES)[None].float() / 255, atol=1e-6)


def test_video_of_floats_stays_as_it_is():
    video = torch.rand(1, 4, 48, 64, 3)
    assert ask(video=video).video is video


@pytest.mark.parametrize(
    "video",
    [
        FRAMES[None].astype(np.float32),
        FRAMES[None] / 127.5 - 1,
        FRAMES[None].astype(np.int64),
        FRAMES[None] * NAN,
        FRAMES,
        np.zeros((1, 4, 3, 48, 64)),
        [],
        [FRAMES[0], FRAMES[1, :24]],
        "video.mp4",
        5,
        object(),
        [[]],
        {"a": 1},
    ],
    ids=lambda video: type(video).__name__,
)
def test_video_that_would_be_misread_is_refused(video):
    with pytest.raises(T2VError, match=r"^video "):
        ask(video=video)


@pytest.mark.parametrize("latents", [np.zeros((1, 4, 4, 6, 8)), np.zeros((1, 4, 4, 6, 8), np.float32)])
def test_latents_may_be_an_array(latents):
    assert ask(latents=latents).latents.dtype == torch.float32


@pytest.mark.parametrize(
    "latents", [torch.full((1, 4, 4, 6, 8), NAN), torch.zeros(1, 4, 4, 6, 8).int(), "noise", [[1], [2, 3]]]
)
def test_latents_that_are_no_noise_are_refused(latents):
    with pytest.raises(T2VError, match=r"^latents "):
        ask(latents=latents)


@pytest.mark.parametrize("clip", [FRAMES, list(FRAMES), [Image.fromarray(frame) for frame in FRAMES], FRAMES / 255])
def test_film_continues_a_clip_of_any_library(clip, pipeline):
    film = Film(pipeline, "a red circle", clip=clip, frames=np.int64(4), seed=np.int64(3), negative_prompt=None)
    assert torch.allclose(film.job.clip, torch.from_numpy(FRAMES).float() / 255, atol=1e-6)
    assert film.shape[2] == 8


@pytest.mark.parametrize("clip", [FRAMES.astype(np.float32), FRAMES / 127.5 - 1, FRAMES * NAN, "clip.mp4", []])
def test_film_refuses_a_clip_that_would_be_misread(clip, pipeline):
    with pytest.raises(T2VError, match=r"^clip "):
        Film(pipeline, "a red circle", clip=clip)


@pytest.mark.parametrize("convert", [pixels, finite_tensor])
def test_array_that_cannot_be_written_is_copied(convert):
    array = np.ones((1, 2, 2, 3), np.float32)
    array.setflags(write=False)
    convert(array, "it").zero_()
    assert array.all()


@pytest.mark.parametrize("shape", [(1, 4, 1_000_000, 2048, 2048), (4096, 4, 65536, 8, 8), (1, 4, 1, 10**6, 10**6)])
def test_size_that_no_memory_holds_is_a_sentence(shape):
    with pytest.raises(T2VError, match=r"GB of memory.*fewer frames"):
        check_memory(shape, decoded=False)


def test_memory_of_frames_is_counted_only_where_they_are_held(monkeypatch):
    shape = (1, 4, 1000, 64, 64)  # 131 MB of noise and latents, 3.1 GB of frames
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1 << 30))
    check_memory(shape, decoded=False)
    with pytest.raises(T2VError, match=r"1000 frames of 512x512 need at least 3\.3 GB of memory, and 1\.1 GB are free"):
        check_memory(shape, decoded=True)


@pytest.mark.parametrize(
    "options", [{"frames": 1_000_000, "width": 512, "height": 512}, {"width": 16384, "height": 16384, "frames": 65536}]
)
def test_clips_and_films_that_no_memory_holds_are_refused_before_any_work(pipeline, options, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=8 << 30))
    with pytest.raises(T2VError, match="GB of memory"):
        pipeline("a", **options)
    with pytest.raises(T2VError, match="GB of memory"):
        Film(pipeline, "a", **options)


@pytest.mark.slow
def test_texts_that_no_memory_holds_are_refused(pipeline):
    with pytest.raises(T2VError, match="shorten the long ones"):
        pipeline.encode_text(["a circle " * 2000] * (MOST_TOKENS // 4000))


def test_long_prompt_is_encoded_without_a_word_of_others(pipeline, caplog, capfd):
    with torch.no_grad():
        assert pipeline.encode_text(["a red circle " * 60]).shape[1] == 3 * 77
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_frame_rate_of_a_text_is_a_number():
    assert ask(fps="30000/1001").fps == float(Fraction(30000, 1001))
    with pytest.raises(T2VError, match="frame rate"):
        ask(fps="1e999999999")


@pytest.mark.parametrize("folder", ["a\0b", "a\ud800b", "taken/inside", "x" * 5000])
def test_folder_that_no_film_can_be_kept_in_is_refused_in_a_sentence(folder, pipeline, tmp_path):
    (tmp_path / "taken").write_text("a file")
    for path in (tmp_path / folder, str(tmp_path / folder)):
        with pytest.raises(T2VError, match=r"cannot be kept in .*choose another folder"):
            next(Film(pipeline, "a", frames=1, resume=path).latents())


@pytest.mark.parametrize("options", [{"device": "nonsense"}, {"device": object()}, {"dtype": "fp16"}, {"dtype": 16}])
def test_device_or_type_of_weights_that_does_not_exist_is_a_sentence(options):
    with pytest.raises(T2VError, match=r"device .* is not known|dtype is .*torch\.float32"):
        load_pipeline("built-in", **options)


@pytest.mark.parametrize(
    ("name", "ours"),
    [("num_inference_steps", "steps"), ("num_frames", "frames"), ("generator", "seed"), ("hieght", "list")],
)
def test_an_argument_that_does_not_exist_is_a_sentence_with_its_name_here(name, ours):
    for make in (load_pipeline("built-in"), partial(Film, load_pipeline("built-in"))):
        with pytest.raises(T2VError, match=rf"{name}.*{ours}"):
            make("a red circle", **{name: 2})
