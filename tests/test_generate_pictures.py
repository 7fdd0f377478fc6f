"""`generate` with pictures: files that begin, end and go on with them, and one sentence for every wrong input."""

import numpy as np
import pytest
import torch
from PIL import Image

from t2v_models import load_pipeline
from t2v_models.__main__ import main
from t2v_models.between_images import between_images
from t2v_models.cli.pictures import read_picture
from t2v_models.errors import T2VError

QUICK = ["--frames", "4", "--steps", "2"]


def drawn(colour):
    """A disc on blue, 64x64."""
    y, x = np.mgrid[:64, :64]
    picture = np.full((64, 64, 3), (30, 60, 230), dtype=np.uint8)
    picture[np.hypot(x - 20, y - 32) < 10] = colour
    return picture


@pytest.fixture
def files(tmp_path):
    """Three pictures: a red, a yellow and a white disc."""
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, colour in zip(paths, ((230, 25, 30), (255, 230, 30), (250, 250, 250)), strict=True):
        Image.fromarray(drawn(colour)).save(path)
    return paths


@pytest.fixture(scope="module")
def pipeline():
    return load_pipeline()


def generate(folder, *arguments, text="a red circle moves right"):
    """Make a folder of pictures; returns them, (t, h, w, 3), 0..1."""
    words = [text] if text else []
    assert main(["generate", *words, *QUICK, "--output", str(folder / "out.png"), *map(str, arguments)]) == 0
    return np.stack([np.asarray(Image.open(path)) for path in sorted((folder / "out").iterdir())]) / 255


def rendered(pipeline, path):
    """The picture as the model's VAE renders it."""
    return next(
        pipeline.decode(pipeline.encode_video(torch.from_numpy(np.array(Image.open(path)))[None, None] / 255)[0])
    )


def near(frame, wanted):
    return np.abs(frame - wanted[0].numpy()).max() < 0.51 / 255


def test_video_begins_and_ends_with_the_pictures(tmp_path, files, pipeline):
    frames = generate(tmp_path, "--image", files[0], "--end-image", files[1])
    assert len(frames) == 4
    assert near(frames[0], rendered(pipeline, files[0]))
    assert near(frames[-1], rendered(pipeline, files[1]))


@pytest.mark.slow
def test_picture_at_the_end_alone(tmp_path, files, pipeline):
    frames = generate(tmp_path, "--end-image", files[1])
    assert near(frames[-1], rendered(pipeline, files[1]))


@pytest.mark.slow
@pytest.mark.parametrize("last", ["--image", "--end-image"])
def test_several_pictures_are_one_video_that_shows_each_once(tmp_path, files, pipeline, last):
    frames = generate(tmp_path, "--image", files[0], "--image", files[1], last, files[2])
    assert len(frames) == 2 * 3 + 1
    for at, path in zip((0, 3, 6), files, strict=True):
        assert near(frames[at], rendered(pipeline, path))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["windows", "endless"])
def test_film_begins_with_the_picture(tmp_path, files, pipeline, method):
    frames = generate(tmp_path, "--image", files[0], "--method", method)
    assert len(frames) == 4
    assert near(frames[0], rendered(pipeline, files[0]))


@pytest.mark.slow
def test_camera_and_settings_of_methods_reach_the_video(tmp_path, files):
    ways = [
        [],
        ["--image-method", "frame-init"],
        ["--camera", "zoom in"],
        ["--image-method", "repeat-and-slide", "--known", "15", "--resample", "0"],
    ]
    made = []
    for i, way in enumerate(ways):
        (tmp_path / str(i)).mkdir()
        made.append(generate(tmp_path / str(i), "--image", files[0], *way))
    assert all(np.abs(a - b).max() > 0.02 for i, a in enumerate(made) for b in made[:i])


def test_between_images_counts_progress_over_all_pairs_and_needs_two(pipeline):
    pictures, reports = [torch.from_numpy(drawn(colour)) for colour in ((250, 250, 250), (40, 220, 235))], []
    parts = between_images(
        pipeline,
        "a circle",
        [*pictures, pictures[0]],
        frames=3,
        steps=2,
        progress=lambda *report: reports.append(report),
    )
    assert [len(part) for part in parts] == [3, 2]
    assert reports == [(1, 4), (2, 4), (3, 4), (4, 4)]
    with pytest.raises(T2VError, match="at least two"):
        list(between_images(pipeline, "a circle", pictures[:1]))


def test_pictures_of_every_kind_are_read_as_they_look(tmp_path):
    plain = Image.fromarray(drawn((230, 25, 30)))
    kinds = {
        "opaque.png": plain.convert("RGBA"),
        "palette.png": plain.convert("P", palette=Image.Palette.ADAPTIVE),
        "plain.webp": plain,
    }
    for name, picture in kinds.items():
        picture.save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
        read = np.asarray(read_picture(tmp_path / name).convert("RGB")).astype(int)
        assert np.abs(read - drawn((230, 25, 30))).max() < 3, name
    deep = np.linspace(0, 65_535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    read = np.asarray(read_picture(tmp_path / "deep.png").convert("RGB")).astype(int)
    assert np.abs(read[..., 0] - deep / 257).max() <= 1
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera turned
    plain.resize((64, 32)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_picture(tmp_path / "turned.jpg").size == (32, 64)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--image", "nowhere.png"], "cannot be read as a picture"),
        (["--image", "text.png"], "cannot be read as a picture"),
        (["--image", "cut.png"], "cannot be read as a picture"),
        (["--image", "clear.png"], "clear.png is a picture with transparency: lay it on a background first"),
        (["--image", "0.png", "--end-image", "clear.png"], "clear.png is a picture with transparency"),
        (["--image", "0.png", "--image", "clear.png"], "clear.png is a picture with transparency"),
        (["--image", "one.png"], "1x1 pixels"),
        (["--image", "long.png"], "20000x8 pixels"),
        (["--image-fit", "pad"], "--image-fit is given without --image"),
        (["--camera", "zoom in"], "--camera is given without --image"),
        (["--image", "0.png", "--camera", "fly"], "choose one of none"),
        (["--image", "0.png", "--camera", "pan up", "--image-method", "hold"], "only 'frame-init'"),
        (["--image", "0.png", "--image-fit", "tile"], "choose one of crop"),
        (["--image", "0.png", "--image-method", "magic"], "choose one of auto"),
        (["--image", "0.png", "--end-image", "1.png", "--image-method", "frame-init"], "choose 'hold'"),
        (["--image", "0.png", "--image", "1.png", "--method", "windows"], "a film begins with one"),
        (["--image", "0.png", "--continue", "clip.mp4"], "begins with one of them"),
        (["--image", "0.png", "--method", "windows", "--image-method", "hold"], "--image-method is given for a film"),
        (["--image", "0.png", "--known", "99", "--image-method", "repeat-and-slide"], "99 known frames"),
        (["--image", "0.png", "--scheduler", "euler"], "steps by ddim"),
    ],
)
def test_wrong_pictures_are_one_sentence(tmp_path, files, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes(files[0].read_bytes()[:120])
    Image.fromarray(np.zeros((64, 64, 4), dtype=np.uint8)).save("clear.png")
    Image.new("RGB", (1, 1)).save("one.png")
    Image.new("RGB", (20_000, 8)).save("long.png")
    assert main(["generate", "a red circle", *QUICK, *arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in error if "generate: " in line]) == 1
    assert said in error[-1]
