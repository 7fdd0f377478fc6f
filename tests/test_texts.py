"""Texts at the border: what is taken, what is written as JSON, and how long a message may be."""

import json
import pickle
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from t2v_models.errors import LONGEST_MESSAGE, T2VError, shortened
from t2v_models.texts import MOST_LETTERS, checked_text, strict_json
from t2v_models.video import json_text

NAN, INFINITE = float("nan"), float("inf")


def parsed(text):
    """The value of a text that must be JSON, NaN and Infinity not among it."""

    def refuse(constant):
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("write", [strict_json, json_text])
@pytest.mark.parametrize(
    ("value", "written"),
    [
        ([NAN], [None]),
        (
            {"1": {"inputs": {"cfg": INFINITE, "x": (-INFINITE, 1.5)}}},
            {"1": {"inputs": {"cfg": None, "x": [None, 1.5]}}},
        ),
        (json.loads("[1e999, -1e999]"), [None, None]),
        ({NAN: "NaN and {Infinity}"}, {"NaN": "NaN and {Infinity}"}),
        ([np.float32("nan"), np.float64("inf")], [None, None]),
        ([np.float64(0.5), np.int64(3), torch.tensor(2)], [0.5, 3, 2]),
        ({"path": Path("a/b"), "type": torch.float16}, {"path": str(Path("a/b")), "type": "torch.float16"}),
        (
            {"text": 'half \ud800 of a pair, "quoted"', "n": 2**70},
            {"text": 'half \ud800 of a pair, "quoted"', "n": 2**70},
        ),
    ],
)
def test_json_of_any_value_is_json_and_numbers_that_it_lacks_are_null(write, value, written):
    assert parsed(write(value)) == written


def test_json_of_finite_values_is_what_json_writes():
    value = {"b": [1, 2.5, None, True, "é"], "a": {"c": 1e-300}}
    assert strict_json(value) == json.dumps(value)
    assert strict_json(value, indent=2, sort_keys=True) == json.dumps(value, indent=2, sort_keys=True)
    assert strict_json(value, ensure_ascii=False) == json.dumps(value, ensure_ascii=False)


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def test_value_that_json_cannot_hold_is_refused_in_a_sentence():
    itself = {}
    itself["me"] = itself
    for value in (itself, nested(100_000), {(1, 2): 3}):
        with pytest.raises(T2VError, match="cannot be written as JSON"):
            strict_json(value)


def test_json_is_written_by_one_function():
    root = Path(__file__).parents[1]
    files = [*(root / "t2v_models").rglob("*.py"), *(root / "nodes").rglob("*.py")]
    writers = Counter(path.name for path in files for _ in re.finditer(r"\bjson\.dumps?\(", path.read_text("utf-8")))
    assert set(writers) == {"texts.py"}


@pytest.mark.parametrize("text", ["", "a red circle", "赤い円 🔴 e\u0301", "a\nb\tc", "x" * MOST_LETTERS])
def test_any_text_of_a_person_is_taken_as_it_is(text):
    assert checked_text(text, "The prompt") == text


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a\0b", "no text"),
        ("a\ud800b", "no text"),
        ("a\udfff", "no text"),
        ("x" * (MOST_LETTERS + 1), f"{MOST_LETTERS + 1} characters"),
        (None, "NoneType"),
        (b"a", "bytes"),
        (["a"], "list"),
        (1.5, "float"),
    ],
)
def test_what_is_no_text_is_refused_with_its_name(text, fault):
    with pytest.raises(T2VError, match=f"^The prompt .*{fault}"):
        checked_text(text, "The prompt")


@pytest.mark.parametrize("quoted", ["a" * 5_000_000, "[1, " * 1_000_000, "漢" * 3000, "\ud800" * 3000])
def test_message_stays_short_whatever_it_quotes_and_keeps_its_remedy(quoted):
    message = f"The file holds a tensor {quoted!r}: download it again."
    error = T2VError(message)
    assert len(str(error)) <= LONGEST_MESSAGE
    assert str(error).startswith("The file holds a tensor")
    assert str(error).endswith(": download it again.")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_short_message_stays_as_it_is():
    for message in ("", "frames is 0: at least 1 is wanted.", "x" * LONGEST_MESSAGE):
        assert str(T2VError(message)) == shortened(message) == message
