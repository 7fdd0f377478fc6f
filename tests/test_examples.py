"""The scripts of docs/examples/ run with the built-in model and write what their first lines say."""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2v_models.video import VideoReader

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))


def run(name: str, target: Path) -> Path:
    """The file that an example writes."""
    command = [sys.executable, "-m", f"docs.examples.{name}", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.mark.slow
def test_a_prompt_becomes_a_file(tmp_path: Path) -> None:
    frames = list(VideoReader(run("clip_to_file", tmp_path / "clip.mp4")))
    assert np.stack(frames).shape == (16, 64, 64, 3)


@pytest.mark.slow
def test_a_story_of_two_scenes_becomes_a_film(tmp_path: Path) -> None:
    frames = list(VideoReader(run("story_film", tmp_path / "film.mp4")))
    assert np.stack(frames).shape == (32, 64, 64, 3)
    red, blue = ((frame[..., channel] - frame.mean(-1)).max() for frame, channel in ((frames[4], 0), (frames[28], 2)))
    assert min(red, blue) > 60, "a red circle first, a blue star at the end"


@pytest.mark.slow
def test_seeds_become_rows_of_a_picture(tmp_path: Path) -> None:
    sheet = np.asarray(Image.open(run("contact_sheet", tmp_path / "sheet.png"))).reshape(6, 64, 4, 64, 3)
    assert all((row != other).any() for row, other in combinations(sheet, 2))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_shows_how_to_run_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 30
    assert f"python -m docs.examples.{path.stem}" in text
