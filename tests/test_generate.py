"""`generate`: prompts to files by extension, and one sentence for every wrong input."""

from fractions import Fraction

import pytest

from t2v_models import Film
from t2v_models.__main__ import main
from t2v_models.video import VideoReader

QUICK = ["--frames", "3", "--steps", "2"]
STORY = "0-50%: a red circle moves right\n50%-100%: a red circle moves up\n"


def generate(folder, *arguments: str, output: str = "video.mp4") -> int:
    return main(["generate", *QUICK, "--output", str(folder / output), *arguments])


def read(path):
    return list(VideoReader(path))


@pytest.mark.parametrize("extension", ["mp4", "webm", "gif"])
def test_extension_decides_the_format(tmp_path, extension):
    assert generate(tmp_path, "a red circle", "--size", "64x32", "--fps", "5", output=f"video.{extension}") == 0
    reader = VideoReader(tmp_path / f"video.{extension}")
    assert [frame.shape for frame in reader] == [(32, 64, 3)] * 3
    assert float(reader.info.fps) == pytest.approx(5, rel=0.01)


def test_png_writes_a_folder_with_a_picture_for_every_frame(tmp_path, capsys):
    assert generate(tmp_path, "a red circle", output="video.png") == 0
    assert [path.name for path in sorted((tmp_path / "video").iterdir())] == ["00000.png", "00001.png", "00002.png"]
    assert capsys.readouterr().out.strip() == str(tmp_path / "video")


@pytest.mark.slow
def test_second_folder_of_pictures_leaves_the_first_as_it_is(tmp_path, capsys):
    for _ in range(2):
        assert generate(tmp_path, "a red circle", output="video.png") == 0
    assert capsys.readouterr().out.split("\n")[:2] == [str(tmp_path / "video"), str(tmp_path / "video (2)")]


def test_png_of_one_frame_is_a_picture(tmp_path):
    for seed in "01":  # the second time over the first
        assert generate(tmp_path, "a red circle", "--frames", "1", "--seed", seed, output="picture.png") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]
    assert [frame.shape for frame in read(tmp_path / "picture.png")] == [(64, 64, 3)]


def test_every_prompt_of_a_file_makes_a_video_with_its_own_seed(tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle\n\na red circle\n", encoding="utf-8")
    assert generate(tmp_path, "--prompts", str(prompts), "--seed", "3", output="video.mkv") == 0
    assert generate(tmp_path, "a red circle", "--seed", "4", output="alone.mkv") == 0
    first, second, alone = (read(tmp_path / f"{name}.mkv") for name in ("video-1", "video-2", "alone"))
    assert any((a != b).any() for a, b in zip(first, second, strict=True))
    assert all((a == b).all() for a, b in zip(second, alone, strict=True))


def test_empty_prompt_makes_a_video(tmp_path):
    assert generate(tmp_path, "") == 0
    assert (tmp_path / "video.mp4").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("more", "method"), [([], "coarse-to-fine"), (["--method", "windows"], "windows")])
def test_loop_option_makes_a_looped_film(tmp_path, monkeypatch, more, method):
    made = []
    monkeypatch.setattr(Film, "finish", lambda film: made.append(film))
    assert generate(tmp_path, "a red circle", "--loop", "--frames", "5", *more) == 0
    assert len(read(tmp_path / "video.mp4")) == 5
    assert [film.job.settings.window.looped for film in made] == [True]
    assert [film.method for film in made] == [method]


@pytest.mark.slow
def test_story_continues_a_clip(tmp_path):
    story = tmp_path / "story.txt"
    story.write_text(STORY, encoding="utf-8")
    assert generate(tmp_path, "a red circle", output="clip.mkv") == 0
    assert generate(tmp_path, "--story", str(story), "--continue", str(tmp_path / "clip.mkv")) == 0
    assert len(read(tmp_path / "video.mp4")) == 6


def test_clip_without_frames_at_the_rate_is_refused(tmp_path, capsys):
    assert generate(tmp_path, "a red circle", output="clip.mkv") == 0
    capsys.readouterr()
    assert generate(tmp_path, "a", "--continue", str(tmp_path / "clip.mkv"), "--fps", "0.4") == 2
    assert "no frame is left at 0.4 frames a second" in capsys.readouterr().err
    assert not (tmp_path / "video.mp4").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a", "--scheduler", "nonsense"], ["nonsense", "ddim"]),
        (["a", "--fps", "0"], ["frame rate 0", "0.001 to 1000"]),
        (["a", "--size", "60x64"], ["60", "multiple of 8"]),
        (["a", "--size", "big"], ["big", "64x64"]),
        (["a", "--frames", "0"], ["0", "at least 1"]),
        (["a", "--steps", "0"], ["0", "1 to 1000"]),
        (["a", "--steps", "0", "--method", "windows"], ["0", "1 to 1000"]),
        (["a", "--method", "nonsense"], ["nonsense", "windows"]),
        (["a", "--resume"], ["--resume", "--method"]),
        (["a", "--candidates", "2"], ["--candidates", "--method"]),
        (["a", "--candidates", "2", "--method", "windows"], ["--candidates", "coarse-to-fine"]),
        (["a", "--loop", "--method", "endless"], ["--loop", "windows or coarse-to-fine"]),
        (["a", "--loop", "--continue", "{folder}/clip.mp4"], ["--loop and --continue", "leave one out"]),
        (["a", "--loop", "--frames", "-1"], ["frames", "at least 1"]),
        (["a", "--guidance", "nan"], ["guidance", "nan"]),
        (["a", "--guidance", "inf", "--method", "windows"], ["guidance", "inf"]),
        (["a", "--seed", "9" * 20], ["seed", "9" * 20]),
        (["a", "b", "--seed", f"{2**64 - 1}"], ["seed"]),
        (["a", "--frames", "9" * 20], ["frames", "at most"]),
        (["a", "--size", "8000000x64"], ["8000000", "at most"]),
        (["a", "--size", "0x64"], ["0x64", "64x64"]),
        (["a", "--frames", "1000000", "--size", "16384x16384"], ["memory", "--size"]),
        (["a", "--scheduler", "lcm", "--steps", "51"], ["lcm", "51", "fewer"]),
        (["a", "--fps", "120", "--output", "{folder}/video.gif"], ["GIF", "120"]),
        (["caf\udce9"], ["caf", "UTF-8"]),
        (["a\0b"], ["no text"]),
        (["a", "--negative-prompt", "caf\udce9"], ["--negative-prompt", "UTF-8"]),
        (["a", "0-90s: b", "--method", "windows", "--resume"], ["Line 1", "end it earlier"]),
        (["a", "b", "--output", "{folder}/taken.mp4"], ["taken-2.mp4", "folder"]),
        (["a", "--device", "meta"], ["meta"]),
        (["a", "--device", "hpu"], ["hpu"]),
        (["a", "--device", "nonsense"], ["nonsense"]),
        (["a", "--model", "{folder}"], ["{folder}"]),
        (["a", "--model", "{folder}/nothing"], ["nothing"]),
        (["a", "--output", "{folder}/nowhere/video.mp4"], ["nowhere", "make it first"]),
        (["a", "--output", "{folder}/video.xyz"], ["xyz"]),
        (["a", "--output", "{folder}"], ["folder"]),
        ([], ["No prompt"]),
        (["--prompts", "{folder}/empty.txt"], ["empty.txt", "one per line"]),
        (["--prompts", "{folder}/latin.txt"], ["latin.txt", "UTF-8"]),
        (["--prompts", "{folder}/none.txt"], ["none.txt", "name a text file"]),
        (["--story", "{folder}"], ["{folder}", "name a text file"]),
        (["--story", "{folder}/heavy.txt"], ["Line 1", "weight"]),
        (["--story", "{folder}/empty.txt"], ["no scene", "0-2s"]),
        (["--story", "{folder}/late.txt"], ["Line 2", "0-2s"]),
        (["a", "--story", "{folder}/late.txt"], ["--story", "prompt"]),
    ],
    ids=lambda value: " ".join(value) or "nothing",
)
def test_wrong_input_is_one_sentence_and_leaves_nothing_behind(tmp_path, capsys, arguments, words):
    (tmp_path / "empty.txt").write_text("\n", encoding="utf-8")
    (tmp_path / "latin.txt").write_bytes("caf\u00e9".encode("latin-1"))
    (tmp_path / "late.txt").write_text("0-2f: a\n2-90f: b", encoding="utf-8")
    (tmp_path / "heavy.txt").write_text(f"weight {'9' * 400}: a", encoding="utf-8")
    (tmp_path / "taken-2.mp4").mkdir()
    before = sorted(path.name for path in tmp_path.iterdir())
    assert generate(tmp_path, *(each.format(folder=tmp_path) for each in arguments)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("python -m t2v_models generate:")
    assert all(word.format(folder=tmp_path) in error for word in words), error
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_rate_may_be_a_fraction(tmp_path, capsys):
    assert generate(tmp_path, "a", "--fps", "30000/1001", output="video.mkv") == 0
    assert VideoReader(tmp_path / "video.mkv").info.fps == Fraction(30000, 1001)
    for rate in ("nan", "1/0", "1e999"):
        with pytest.raises(SystemExit):
            generate(tmp_path, "a", "--fps", rate)
        assert f"{rate!r} is no frame rate" in capsys.readouterr().err


@pytest.mark.slow
def test_unfinished_films_stay_until_all_are_written(tmp_path, monkeypatch):
    film = "t2v_models.films.film.Film.latents"
    latents, made = Film.latents, []

    def stopped(self):
        made.append(self.job.store.get("part") is not None)
        if len(made) == 2:
            raise KeyboardInterrupt
        yield from latents(self)

    monkeypatch.setattr(film, stopped)
    call = ("a", "b", "--method", "windows", "--resume")
    assert generate(tmp_path, *call, output="film.mp4") == 130
    assert (tmp_path / "film-1.mp4.unfinished").is_dir()
    monkeypatch.setattr(film, latents)
    assert generate(tmp_path, *call, output="film.mp4") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film-1.mp4", "film-2.mp4"]
