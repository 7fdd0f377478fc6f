"""A stranger's file has a budget, its JSON has limits, and a message quotes little of it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from t2v_models.errors import T2VError
from t2v_models.foreign import LIMITS, MOST_JSON, Budget, parse_json, quoted, read_json_file


@pytest.mark.parametrize("what", LIMITS)
def test_a_budget_is_spent_by_all_parts_of_a_file_together_and_its_end_names_the_file(what: str) -> None:
    budget = Budget("model.pth")
    budget.spend(what, LIMITS[what] // 2)
    budget.spend(what, LIMITS[what] - LIMITS[what] // 2)
    with pytest.raises(T2VError, match=rf"model\.pth takes more than {LIMITS[what]:,} {what}"):
        budget.spend(what)


HOSTILE = {
    "nested too deep": "[" * 200_000,
    "objects nested too deep": '{"a":' * 200_000,
    "an array that never ends": "[[],",
    "many objects": "[" + "{}," * 1_100_000 + "{}]",
    "a long number": "[" + "9" * 1_000_000 + "]",
    "too many bytes": '"' + "a" * MOST_JSON + '"',
    "no UTF-8": b'{"a": "\xff\xfe"}',
    "nothing": "",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_json_beyond_the_limits_is_refused_with_its_files_name_in_a_second(kind: str) -> None:
    start = time.process_time()
    with pytest.raises(T2VError, match=r"config\.json") as caught:
        parse_json(HOSTILE[kind], "config.json")
    assert len(str(caught.value)) < 500
    assert time.process_time() - start < 1


def test_json_that_diffusers_writes_is_read_as_by_the_standard_library() -> None:
    text = json.dumps({"lambda_min_clipped": -float("inf"), "betas": None, "steps": 1000, "name": "ü", "rate": 1e-4})
    assert parse_json(text, "scheduler_config.json") == json.loads(text)
    assert parse_json(text.encode(), "scheduler_config.json") == json.loads(text)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_or_a_folder_in_place_of_a_json_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "folder.json").mkdir()
    for name in ("pipe.json", "folder.json", "missing.json"):
        with pytest.raises(T2VError, match=name):
            read_json_file(tmp_path / name)


@pytest.mark.parametrize("value", ["a" * 5_000_000, [1] * 1_000_000, tuple(range(10_000)), ["b" * 10_000] * 3])
def test_a_long_value_is_quoted_in_short(value: object) -> None:
    assert len(quoted(value)) < 400


def test_a_short_value_is_quoted_whole_and_on_one_line() -> None:
    assert quoted("conv_in.weight") == "conv_in.weight"
    assert quoted([320, 4, 3, 3]) == "[320, 4, 3, 3]"
    assert quoted("a\nb\x1b[0m\ud800") == "a\\nb\\x1b[0m\\ud800"
