"""`generate --zero-shot`: an image model's videos from the command line, and the edges that it draws for ControlNets."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from t2v_models.__main__ import main
from t2v_models.builtin_model import IMAGE_BUILT_IN
from t2v_models.video import VideoReader, VideoWriter
from t2v_models.zero_shot.edges import are_edges, canny
from t2v_models.zero_shot.loading import load_zero_shot
from t2v_models.zero_shot.motion import Motion

QUICK = ["--zero-shot", "--frames", "3", "--steps", "18", "--guidance", "1", "--t0", "0.8"]
BASE = ["--zero-shot", "--frames", "3", "--steps", "18", "--guidance", "1"]


def generate(folder, *arguments, output="video.mkv", base=QUICK, model="sd"):
    return main(["generate", *base, "--model", str(folder / model), "--output", str(output), *map(str, arguments)])


def read(path):
    return np.stack(list(VideoReader(path)))


def square(place):
    """A white square on blue."""
    picture = Image.new("RGB", (96, 96), "navy")
    ImageDraw.Draw(picture).rectangle((place, 30, place + 40, 70), fill="white")
    return picture


@pytest.fixture
def clip(tmp_path):
    with VideoWriter(tmp_path / "clip.mkv", 8) as writer:
        for place in (10, 20, 30):
            writer.write(np.array(square(place)))
    return tmp_path / "clip.mkv"


def test_a_prompt_makes_the_video_of_the_library(image_models_folder, tmp_path):
    output = tmp_path / "video.mkv"
    assert generate(image_models_folder, "a red circle", "--motion", "40,-20", "--seed", 3, output=output) == 0
    pipeline = load_zero_shot(image_models_folder / "sd")
    video = pipeline("a red circle", frames=3, steps=18, guidance_scale=1, t0=0.8, seed=3, motion=Motion(x=40, y=-20))
    assert np.abs(read(output) - (video * 255).round().numpy()).max() <= 1
    assert float(VideoReader(output).info.fps) == pipeline.defaults.fps


@pytest.mark.slow
def test_several_prompts_make_videos_with_seeds_that_count_up(image_models_folder, tmp_path):
    assert generate(image_models_folder, "a", "a", "--seed", 3, "--size", "64x48", output=tmp_path / "v.mkv") == 0
    assert generate(image_models_folder, "a", "--seed", 4, "--size", "64x48", output=tmp_path / "alone.mkv") == 0
    assert read(tmp_path / "v-1.mkv").shape == (3, 48, 64, 3)
    assert np.array_equal(read(tmp_path / "v-2.mkv"), read(tmp_path / "alone.mkv"))


@pytest.mark.slow
def test_a_story_gives_every_frame_its_prompt(image_models_folder, tmp_path):
    story = tmp_path / "story.txt"
    story.write_text("0-1f: a red circle\n1-3f: a blue square", encoding="utf-8")
    for name, prompts in (("story", ["--story", story]), ("plain", ["a red circle"])):
        assert generate(image_models_folder, *prompts, output=tmp_path / f"{name}.mkv") == 0
    one, other = read(tmp_path / "story.mkv"), read(tmp_path / "plain.mkv")
    assert np.array_equal(one[0], other[0])
    assert not np.array_equal(one[1:], other[1:])


@pytest.mark.slow
def test_a_control_follows_a_video_of_which_it_draws_the_edges(image_models_folder, tmp_path, clip, caplog):
    with caplog.at_level(logging.INFO):
        for name, file in (("drawn", clip), ("one", tmp_path / "one.png")):
            square(20).save(tmp_path / "one.png")
            assert (
                generate(
                    image_models_folder, "a", "--control", f"canny={file}", output=tmp_path / f"{name}.mkv", base=BASE
                )
                == 0
            )
    assert "is not made of edges: they are drawn" in caplog.text
    edges = canny(torch.from_numpy(read(clip)).float() / 255)
    with VideoWriter(tmp_path / "edges.mkv", 8) as writer:
        for frame in edges:
            writer.write(frame)
    caplog.clear()
    folder = image_models_folder / "sd-controlnet-canny"
    assert (
        generate(
            image_models_folder,
            "a",
            "--control",
            f"{folder}={tmp_path / 'edges.mkv'}",
            output=tmp_path / "given.mkv",
            base=BASE,
        )
        == 0
    )
    assert "are drawn" not in caplog.text
    assert not np.array_equal(read(tmp_path / "drawn.mkv"), read(tmp_path / "one.mkv"))


def test_edges_of_a_square_are_its_outline_and_are_taken_for_edges():
    picture = torch.from_numpy(np.array(square(20))).float()[None] / 255
    edges = canny(picture)
    assert edges.shape == picture.shape
    assert set(edges.unique().tolist()) == {0.0, 1.0}
    rows, columns = edges[0, ..., 0].nonzero().T
    assert abs(int(rows.min()) - 30) <= 1
    assert abs(int(rows.max()) - 70) <= 1
    assert abs(int(columns.min()) - 20) <= 1
    assert abs(int(columns.max()) - 60) <= 1
    assert 150 <= int(edges[..., 0].sum()) <= 180
    assert are_edges(edges)
    assert not are_edges(picture)
    assert not canny(torch.full((1, 20, 20, 3), 0.5)).any()


def test_a_faint_edge_stays_only_where_it_touches_a_strong_one():
    picture = torch.zeros(1, 40, 40, 3)
    picture[:, :, 20:] = torch.linspace(0.05, 1, 40).view(1, 40, 1, 1)
    edges = canny(picture)[0, :, 18:22, 0].any(1)
    assert edges[35]
    assert not edges[2]
    alone = canny(picture * 0.1)
    assert not alone.any()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a", "--motion", "1,2,3"], ["1,2,3", "X,Y"]),
        (["a", "--path", "up"], ["up", "straight"]),
        (["a", "--path", "curve"], ["--curve", "0,0 80,0"]),
        (["a", "--curve", "0,0 5"], ["'5'", "X,Y"]),
        (["a", "--curve", "0,0"], ["1 points", "2 to"]),
        (["a", "--curve", "0,0 5,5", "--motion", "3"], ["--curve", "leave the others out"]),
        (["a", "--t0", "0.95"], ["t0 is 0.95", "0.88 and 0.94"]),
        (["a", "--steps", "3"], ["take more steps"]),
        (["a", "--anchor", "last"], ["last", "first + previous"]),
        (["a", "--warp", "cubic"], ["cubic", "nearest"]),
        (["a", "--chunk", "1"], ["chunk is 1"]),
        (["a", "--scheduler", "euler-a"], ["euler-a", "dpm++2m"]),
        (["a", "--image", "{folder}/a.png"], ["--image", "--zero-shot"]),
        (["a", "--image-strength", "0.5"], ["--image-strength", "--zero-shot"]),
        (["a", "--method", "windows"], ["--method", "--zero-shot"]),
        (["a", "--continue", "{folder}/a.mp4"], ["--continue", "--zero-shot"]),
        (["a", "--model", "{folder}"], ["model_index.json", "Stable Diffusion"]),
        (["a", "--model", "{folder}/nothing"], ["no folder", "nothing"]),
        (["a", "--control-strength", "2"], ["--control-strength", "--control"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_wrong_input_is_one_sentence_and_leaves_nothing_behind(image_models_folder, tmp_path, capsys, arguments, words):
    arguments = [each.format(folder=tmp_path) for each in arguments]
    try:
        status = generate(image_models_folder, *arguments, output=tmp_path / "video.mkv", base=BASE)
    except SystemExit as error:
        status = error.code
    assert status == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert all(word in error for word in words), error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--control", "canny"], ["'canny'", "NAME=FILE"]),
        (["--control", "canny={folder}/nothing.mp4"], ["nothing.mp4", "a video, a picture or a folder"]),
        (["--control", "depth={folder}/clip.mkv"], ["No ControlNet 'depth'", "give its folder"]),
        (
            ["--control", "canny={folder}/clip.mkv", "--frames", "5"],
            ["3 pictures for a control of 5", "ask for 3 frames"],
        ),
        (["--control", "canny={folder}/clip.mkv", "--motion", "3"], ["--motion", "--control"]),
        (["--control", "canny={folder}/clip.mkv", "--t0", "0.5"], ["--t0", "--control"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_wrong_control_is_one_sentence(image_models_folder, tmp_path, clip, capsys, arguments, words):
    arguments = [each.format(folder=tmp_path) for each in arguments]
    assert generate(image_models_folder, "a", *arguments, output=tmp_path / "video.mkv", base=BASE) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert all(word in error for word in words), error


@pytest.mark.parametrize("arguments", [["--path", "zoom"], ["--t1", "0.9"], ["--control", "a=b"], ["--motion", "1,2"]])
def test_its_options_are_refused_without_it(tmp_path, capsys, arguments):
    assert main(["generate", "a", "--output", str(tmp_path / "video.mp4"), *arguments]) == 2
    assert "--zero-shot: add this" in capsys.readouterr().err


def test_the_built_in_image_model_makes_no_other_videos(tmp_path, capsys):
    assert main(["generate", "a", "--output", str(tmp_path / "video.mp4"), "--model", IMAGE_BUILT_IN]) == 2
    assert "with --zero-shot alone: add this" in capsys.readouterr().err
