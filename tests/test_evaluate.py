"""The commands that train and evaluate: their reports, and their errors for wrong arguments."""

import csv
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from t2v_models.__main__ import main
from t2v_models.errors import T2VError
from t2v_models.evaluation import report
from t2v_models.evaluation.workers import spread


def test_evaluate_scores_drawn_clips_as_right_and_writes_its_report(tmp_path, capsys):
    assert main(["evaluate", "--truth", "--plain", "4", "--pairs", "2", "--output", str(tmp_path / "out")]) == 0
    table = capsys.readouterr().out
    assert "plain" in table
    assert "100.0" in table
    for name in ("results.csv", "sheet.png", "plot.png"):
        assert (tmp_path / "out" / name).stat().st_size > 100


@pytest.mark.slow
def test_killed_process_is_reported_with_a_remedy():
    with pytest.raises(T2VError, match=r"for want of memory: ask for a smaller --batch or fewer --jobs"):
        list(spread(os._exit, [1, 1], 2))


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "--plain", "-1"],
        ["evaluate", "--plain", "0"],
        ["evaluate", "--plain", "1", "--jobs", "0"],
        ["evaluate", "--plain", "1", "--model", "nowhere"],
        ["evaluate", "--plain", "1", "--scheduler", "nonsense"],
        ["evaluate", "--plain", "1", "--output", "README.md"],
        ["evaluate", "--plain", "1", "--stories", "1", "--scheduler", "euler", "--output", "out"],
        ["evaluate", "--stories", "1", "--frames", "8", "--output", "out"],
        ["evaluate", "--truth", "--plain", "1", "--frames", "4", "--output", "out"],
        ["evaluate", "--truth", "--plain", "1", "--model", "nowhere", "--output", "out"],
        ["evaluate", "--schedulers", "1", "--steps", "60", "--output", "out"],
        ["evaluate", "--plain", "1", "--seed", "9" * 20, "--output", "out"],
        ["evaluate", "--plain", "1", "--guidance", "nan", "--output", "out"],
        ["train-builtin", "--seed", "9" * 20],
        ["train-builtin", "--threads", "0"],
        ["train-builtin", "--work", "out", "--output", "out"],
        ["evaluate", "--plain", "1", "--frames", "4", "--output", "out"],
        ["evaluate", "--stories", "1", "--steps", "2000", "--output", "out"],
        ["evaluate", "--plain", "1", "--method", "coarse-to-fine", "--output", "out"],
        ["train-builtin", "--scale", "2"],
        ["train-builtin", "--output", "README.md"],
        ["train-builtin", "--device", "nowhere"],
        ["evaluate", "--plain", "1", "--device", "nowhere"],
        ["evaluate", "--zero-shot", "-1"],
        ["evaluate", "--zero-shot", "1", "--plain", "1", "--output", "out"],
        ["evaluate", "--zero-shot", "1", "--frames", "8", "--output", "out"],
        ["evaluate", "--zero-shot", "1", "--model", "nowhere", "--output", "out"],
        ["evaluate", "--truth", "--zero-shot", "1", "--output", "out"],
        ["train-builtin", "--image", "--steps", "0"],
        ["train-builtin", "--image", "--output", "README.md"],
    ],
)
def test_wrong_arguments_get_one_sentence(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("README.md").write_text("a file")
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error
    assert "\n" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"], "no file may be left behind"


@pytest.mark.slow
def test_several_processes_give_the_results_of_one(tmp_path, capsys):
    for jobs in "12":
        asked = ["--plain", "2", "--pairs", "2", "--unguided", "2", "--batch", "2", "--steps", "4"]
        assert main(["evaluate", *asked, "--jobs", jobs, "--output", str(tmp_path / jobs)]) == 0
    one, two = (list(csv.reader((tmp_path / jobs / "results.csv").open())) for jobs in "12")
    assert len(one) == 7
    assert [row[:3] for row in one] == [row[:3] for row in two]
    assert [row[3:9] for row in one] == [row[3:9] for row in two]


@pytest.mark.parametrize(
    ("right", "wrong", "shown"), [(47, 24, 24), (90, 10, 10), (366, 18, 18), (2, 60, 46), (90, 60, 24)]
)
def test_contact_sheet_shows_wrong_videos_and_some_right_ones(monkeypatch, right, wrong, shown):
    rows = []
    monkeypatch.setattr(report, "strips", lambda given, path, columns: rows.extend(given))
    score, question = (lambda ok: SimpleNamespace(right={"all": ok})), SimpleNamespace(prompt="a red circle")
    given = [
        SimpleNamespace(score=score(ok), question=question, frames=None) for ok in [True] * right + [False] * wrong
    ]
    report.contact_sheet(given, Path("sheet.png"))
    assert len(rows) == min(48, right + wrong)
    assert sum(not ok for _, _, ok in rows) == shown
