"""The image model that comes with this package, in zero-shot videos."""

from __future__ import annotations

import pytest

from t2v_models.__main__ import main
from t2v_models.builtin_model import IMAGE_BUILT_IN_FOLDER
from t2v_models.video import VideoReader
from t2v_models.zero_shot.loading import load_zero_shot
from t2v_models.zero_shot.motion import Motion

HAS_MODEL = (IMAGE_BUILT_IN_FOLDER / "unet").is_dir()


@pytest.mark.skipif(not HAS_MODEL, reason="the image model is not in this copy")
def test_generate_without_a_model_takes_the_built_in_image_model(tmp_path):
    assert main(["generate", "a red circle", "--zero-shot", "--output", str(tmp_path / "video.mkv")]) == 0
    frames = list(VideoReader(tmp_path / "video.mkv"))
    assert [frame.shape for frame in frames] == [(64, 64, 3)] * 8


@pytest.mark.skipif(not HAS_MODEL, reason="the image model is not in this copy")
def test_a_red_circle_is_red_in_all_frames():
    frames = load_zero_shot()("a red circle", seed=1, motion=Motion(x=0, y=0))
    for frame in frames:
        red, green, blue = frame.movedim(-1, 0)
        on = red > 0.5
        assert 0.02 < float(on.float().mean()) < 0.5
        assert float(red[on].mean()) > 2 * float(green[on].mean())
        assert float(red[on].mean()) > 2 * float(blue[on].mean())


@pytest.mark.skipif(HAS_MODEL, reason="the image model is in this copy")
def test_a_copy_without_the_image_model_says_so(tmp_path, capsys):
    assert main(["generate", "a red circle", "--zero-shot", "--output", str(tmp_path / "video.mkv")]) == 2
    assert "lacks its built-in image model" in capsys.readouterr().err
