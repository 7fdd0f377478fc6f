"""The commands that train and evaluate: what evaluate finds, and what both refuse."""

import csv
from pathlib import Path

import pytest

from t2v_models.__main__ import main


def test_evaluate_checks_its_own_analysis_and_draws_its_pictures(tmp_path, capsys):
    assert main(["evaluate", "--truth", "--plain", "4", "--pairs", "2", "--output", str(tmp_path / "out")]) == 0
    table = capsys.readouterr().out
    assert "plain" in table
    assert "100.0" in table
    for name in ("results.csv", "sheet.png", "plot.png"):
        assert (tmp_path / "out" / name).stat().st_size > 100


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "--plain", "-1"],
        ["evaluate", "--plain", "0"],
        ["evaluate", "--plain", "1", "--jobs", "0"],
        ["evaluate", "--plain", "1", "--model", "nowhere"],
        ["evaluate", "--plain", "1", "--scheduler", "nonsense"],
        ["evaluate", "--plain", "1", "--output", "README.md"],
        ["train-builtin", "--threads", "0"],
        ["train-builtin", "--scale", "2"],
        ["train-builtin", "--output", "README.md"],
        ["train-builtin", "--device", "nowhere"],
        ["evaluate", "--plain", "1", "--device", "nowhere"],
    ],
)
def test_wrong_input_gets_one_sentence(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("README.md").write_text("a file")
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error
    assert "\n" not in error


@pytest.mark.slow
def test_several_processes_find_what_one_finds(tmp_path, capsys):
    for jobs in "12":
        asked = ["--plain", "2", "--pairs", "2", "--unguided", "2", "--batch", "2", "--steps", "4"]
        assert main(["evaluate", *asked, "--jobs", jobs, "--output", str(tmp_path / jobs)]) == 0
    one, two = (list(csv.reader((tmp_path / jobs / "results.csv").open())) for jobs in "12")
    assert len(one) == 7
    assert [row[:3] for row in one] == [row[:3] for row in two]
    assert [row[3:9] for row in one] == [row[3:9] for row in two]
