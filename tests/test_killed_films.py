"""A film that was killed and resumed is the same file, bit for bit.

A file of its own, so that two test processes share the slow tests of films.
"""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from t2v_models.__main__ import main
from t2v_models.films.settings import METHODS

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


def generate(folder: Path, method: str) -> list[str]:
    story = folder / "story.txt"
    story.write_text("0-50%: a red circle moves right\n50%-100%: a blue circle moves down\n", encoding="utf-8")
    options = ["--story", str(story), "--frames", "40", "--steps", "8", "--method", method, "--resume"]
    return ["generate", *options, "--output", str(folder / "film.mp4")]


@pytest.mark.parametrize("method", METHODS)
def test_killed_film_resumes_to_the_same_file_bit_for_bit(tmp_path, method):
    once, again = tmp_path / "once", tmp_path / "again"
    for folder in (once, again):
        folder.mkdir()
    assert main(generate(once, method)) == 0
    command, silent = [sys.executable, "-m", "t2v_models", *generate(again, method)], subprocess.DEVNULL
    running = subprocess.Popen(command, cwd=ROOT, stdout=silent, stderr=silent)
    unfinished = again / "film.mp4.unfinished"
    deadline = time.monotonic() + 240
    while len(list(unfinished.glob("*.safetensors"))) < 1 and running.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    running.kill()
    running.wait()
    assert not (again / "film.mp4").exists(), "it was finished before it could be killed"
    assert main(generate(again, method)) == 0
    assert (again / "film.mp4").read_bytes() == (once / "film.mp4").read_bytes()
    assert not unfinished.exists()
