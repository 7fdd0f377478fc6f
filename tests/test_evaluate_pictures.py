"""The evaluation of videos of pictures: its measures, its table and its command."""

import pytest
import torch

from t2v_models.__main__ import main
from t2v_models.evaluation.pictures import WAYS, asked, drawn, judge, psnr, table

BOTH = WAYS["both ends"]
ABOUT = ("colour", "shape", "place", "motion", "all")


def moved(clip, pixels):
    """A clip that is shifted to the right, with its edge repeated."""
    return torch.cat([clip[:, :, :1].expand(-1, -1, pixels, -1), clip[:, :, :-pixels]], dim=2)


@pytest.mark.slow
def test_drawn_clips_are_right_and_keep_their_pictures():
    for question in asked(20, seed=4):
        verdict = judge(BOTH, question, drawn(question))
        assert verdict.kept
        assert verdict.right == dict.fromkeys(ABOUT, True), question.prompt
        assert verdict.jump <= 2


@pytest.mark.parametrize("end", [0, -1])
def test_frame_that_is_another_picture_is_not_kept(end):
    question = asked(1)[0]
    clip = drawn(question)
    clip[end] = clip[end].flip(0)
    verdict = judge(BOTH, question, clip)
    assert not verdict.kept
    assert (verdict.first >= 30, verdict.last >= 30) == (end == -1, end == 0)
    assert judge(WAYS["first frame" if end else "last frame"], question, clip).kept, "it was not given that picture"


def test_object_of_another_colour_place_or_motion_is_wrong():
    question = asked(1)[0]
    clip = drawn(question)
    assert not judge(BOTH, question, clip * torch.tensor([1.0, 0.0, 0.0])).right["colour"]
    assert not judge(BOTH, question, moved(clip, 3)).right["place"]
    assert judge(BOTH, question, torch.cat([clip[:1], clip[:1], clip[:-2]])).right["place"]
    assert not judge(BOTH, question, clip.flip(0)).right["motion"]
    empty = clip[:, :1, :1].expand_as(clip)
    assert not any(judge(BOTH, question, empty).right.values())


def test_jump_is_the_longest_step_in_normal_ones():
    question = asked(1)[0]
    clip = drawn(question)
    assert judge(BOTH, question, torch.cat([clip[:8], moved(clip, 20)[8:]])).jump > 4


def test_ways_are_given_pictures_of_every_kind_and_the_same_ones():
    pictures = asked(100)
    assert len(pictures) == 100
    assert [q.group for q in pictures].count("held out") == [q.group for q in pictures].count("other") == 20
    assert pictures == asked(100)


def test_table_has_a_row_for_each_way_and_no_values_for_pictures_not_given():
    question = asked(1)[0]
    lines = table([judge(WAYS[name], question, drawn(question)) for name in ("both ends", "last frame")]).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["both", "last"]
    assert lines[2].count("100.0 100.0") == 2
    assert lines[3].count("100.0 100.0") == 1


def test_psnr_of_equal_pictures_is_bounded_and_of_a_tenth_is_20():
    one = torch.zeros(4, 4, 3)
    assert psnr(one, one) == pytest.approx(100)
    assert psnr(one, one + 0.1) == pytest.approx(20)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--images", "-1"], "negative"),
        (["--images", "1", "--way", "magic"], "choose one of first frame"),
        (["--way", "first frame", "--plain", "1"], "without --images"),
        (["--images", "1", "--steps", "3"], "--steps is 3"),
        (["--images", "1", "--frames", "16"], "--frames is 16"),
        (["--images", "1", "--scheduler", "ddim"], "--scheduler is ddim"),
        (["--images", "1", "--truth"], "leave --images out"),
    ],
)
def test_what_pictures_do_not_take_is_refused(tmp_path, capsys, arguments, said):
    assert main(["evaluate", *arguments, "--output", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("chosen", "count"), [([], 2), (["--way", "slide, K=8"], 10)], ids=["all ways", "this one"])
def test_way_that_takes_long_gets_all_pictures_only_where_it_is_chosen(tmp_path, monkeypatch, chosen, count):
    way, made = WAYS["slide, K=8"], []

    def make(given, **_):
        made.append(given[0])
        return judge(given[0], given[1], drawn(given[1]))

    monkeypatch.setattr("t2v_models.evaluation.pictures.WAYS", {way.name: way})
    monkeypatch.setattr("t2v_models.evaluation.workers.make_pictured", make)
    assert main(["evaluate", "--images", "10", "--jobs", "1", *chosen, "--output", str(tmp_path)]) == 0
    assert made == [way] * count


@pytest.mark.slow
def test_built_in_model_keeps_both_ends_and_moves_as_the_text_says(tmp_path, capsys):
    ways = ["--way", "both ends", "--way", "first frame"]
    assert main(["evaluate", "--images", "2", "--jobs", "1", *ways, "--output", str(tmp_path)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[:3] for row in rows] == [["both", "ends", "2"], ["first", "frame", "2"]]
    assert [row[-5:-1] for row in rows] == [["100"] * 4] * 2, "pictures kept, motion, all, no jump"
    assert (tmp_path / "images.png").is_file()
