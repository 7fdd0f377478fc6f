"""A story from a stranger's workflow is read or refused at once, whatever its form."""

import time
from contextlib import suppress

import pytest
import torch

from t2v_models.errors import T2VError
from t2v_models.plots.timeline import draw_story
from t2v_models.sampling.scenes import equal_length
from t2v_models.sampling.story import MOST_SCENES, parse_story

LONG = 300_000
HOSTILE = {
    "options before a head that is none": "fade 1 , " * (LONG // 9) + "x: a red circle",
    "options after a span": "0-16f" + ", fade 1" * (LONG // 8) + ": a red circle",
    "blanks between options": ("weight 1" + " " * 1000 + ",") * (LONG // 1000) + "x: a",
    "blanks in a span": "0" + " " * LONG + "-" + " " * LONG + "x: a",
    "blanks after a span": "0-2s" + " " * LONG + "x",
    "blanks after a number": "0" + " " * LONG + "x: a",
    "blanks alone": " \t" * LONG,
    "digits": "1" * LONG,
    "digits of a span": f"0-{'9' * LONG}s: a",
    "digits of a fraction": f"0.{'9' * LONG}-2s: a",
    "digits of a fade": f"fade {'9' * LONG}s: a",
    "digits without a colon": f"0-{'9' * 20}s a red circle",
    "digits of a frame": f"{'9' * LONG}: a",
    "lines": "\n".join(f"a red circle {i}" for i in range(20_000)),
    "lines of one letter": "a\n" * LONG,
    "slashes": " / " * LONG,
    "negative lines": "a\n" + "negative: b\n" * 20_000,
    "frame lines": "\n".join(f"{i}: a" for i in range(20_000)),
    "head lines of frame lines": "a\n" * 50_000 + "0: b",
    "keys": "{" + ", ".join(f'"{i}": "a"' for i in range(20_000)) + "}",
    "brackets": '"0": ' + "[{" * LONG,
    "an open quote": '"0": "' + "\\" * LONG,
    "colons": ":" * LONG,
    "quotes": '"' * LONG,
    "braces": "{" * LONG,
    "dashes": "0" + "-" * LONG + ": a",
    "one long text": "0-16f: " + "a" * LONG,
    "a text of megabytes": "a" * 5_000_000,
    "NUL": "0-16f: a\0b",
    "half of a surrogate pair": "a \ud83d cat",
}


@pytest.mark.parametrize("frames", [1, 16, 65536, 1_000_000])
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_story_is_read_or_refused_at_once(text, frames):
    started = time.process_time()  # a busy machine is no fault
    with suppress(T2VError):
        parse_story(text, frames, 8).blend()
    assert time.process_time() - started < 2


@pytest.mark.parametrize("fps", [float("nan"), float("inf"), 0, -1])
def test_frame_rate_without_seconds_is_refused(fps):
    with pytest.raises(T2VError, match="frame rate"):
        parse_story("0-2s: a", 16, fps)


@pytest.mark.parametrize(("scenes", "frames"), [(3, 2), (100, 16), (MOST_SCENES + 1, 65536), (40, 1_000_000)])
def test_story_with_too_many_scenes_names_both_numbers(scenes, frames):
    with pytest.raises(T2VError, match=f"{scenes} scenes.* {frames} frames"):
        parse_story("\n".join(["a"] * scenes), frames, 8)


def test_most_scenes_are_read_and_drawn_within_seconds():
    started = time.perf_counter()
    frames = 4 * MOST_SCENES
    spans = "\n".join(f"{4 * i}-{4 * i + 4}f, fade 1f: scene {i}" for i in range(MOST_SCENES))
    story = parse_story(spans, frames, 8)
    assert torch.allclose(story.blend().sum(1), torch.ones(frames))
    assert draw_story(story, 8).shape[0] < 5000
    assert time.perf_counter() - started < 20


def test_texts_whose_lengths_have_a_huge_common_multiple_are_refused():
    contexts = [torch.zeros(1, 77 * windows, 8) for windows in (7, 8, 9, 11, 13)]
    with pytest.raises(T2VError, match="different lengths"):
        equal_length(contexts)
    assert {each.shape[-2] for each in equal_length(contexts[:2])} == {77 * 56}
