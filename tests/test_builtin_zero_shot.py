"""The image model that comes with this package, in zero-shot videos."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from t2v_models.__main__ import main
from t2v_models.video import VideoReader
from t2v_models.zero_shot.loading import load_zero_shot
from t2v_models.zero_shot.motion import Motion

ROOT = Path(__file__).resolve().parents[1]


def test_generate_without_a_model_takes_the_built_in_image_model(tmp_path):
    assert main(["generate", "a red circle", "--zero-shot", "--output", str(tmp_path / "video.mkv")]) == 0
    frames = list(VideoReader(tmp_path / "video.mkv"))
    assert [frame.shape for frame in frames] == [(64, 64, 3)] * 8


def test_a_red_circle_is_red_in_all_frames():
    frames = load_zero_shot()("a red circle", seed=1, motion=Motion(x=0, y=0))
    for frame in frames:
        red, green, blue = frame.movedim(-1, 0)
        on = red > 0.5
        assert 0.02 < float(on.float().mean()) < 0.5
        assert float(red[on].mean()) > 2 * float(green[on].mean())
        assert float(red[on].mean()) > 2 * float(blue[on].mean())


@pytest.mark.slow
def test_a_video_leaves_nothing_of_others_on_the_terminal(tmp_path):
    """A process of its own: diffusers and transformers speak when they are imported."""
    command = [sys.executable, "-m", "t2v_models", "generate", "a circle", "--zero-shot", "--frames", "2"]
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "a.gif")], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert [word for word in ("accelerate", "torchvision", "Warning", "deprecated") if word in done.stderr] == []


def test_a_copy_without_the_image_model_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("t2v_models.zero_shot.loading.IMAGE_BUILT_IN_FOLDER", tmp_path)
    assert main(["generate", "a red circle", "--zero-shot", "--output", str(tmp_path / "video.mkv")]) == 2
    assert "lacks its built-in image model" in capsys.readouterr().err
