"""Every format: frames, rate, colours and sound come back as they were written."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

from t2v_models.errors import T2VError
from t2v_models.video import FORMATS, VideoReader, VideoWriter, frame_rate
from t2v_models.video.engine import Failed
from t2v_models.video.engines import engine

from .support.engines import every_engine, program_only  # noqa: F401
from .support.video_clips import natural, psnr, some_slow, tone

pytest.importorskip("imageio_ffmpeg")

MOVING = [name for name in FORMATS if FORMATS[name].yuv or name == "webp"]
LOSSLESS = ("ffv1-mkv", "ffv1-16bit-mkv", "png", "png-16bit")
WITH_SOUND = [name for name in FORMATS if FORMATS[name].audio]


def target(folder, name):
    return folder / f"clip{FORMATS[name].extension}"


def write(path, clip, fps=24, **options):
    with VideoWriter(path, fps, **options) as video:
        for frame in clip:
            video.write(frame)
    return path


def read(path, **options):
    return np.stack(list(VideoReader(path, **options)))


@pytest.mark.parametrize("name", some_slow(FORMATS))
@pytest.mark.parametrize(
    ("frames", "height", "width", "fps"),
    [
        (3, 71, 101, 29.97),
        pytest.param(7, 66, 98, Fraction(24000, 1001), marks=pytest.mark.slow),
        pytest.param(1, 64, 64, 8, marks=pytest.mark.slow),
        pytest.param(2, 5, 3, "25/2", marks=pytest.mark.slow),
    ],
)
def test_count_size_and_rate_come_back_exactly(tmp_path, name, frames, height, width, fps):
    path = write(target(tmp_path, name), natural(frames, height, width), fps, format=name)
    reader = VideoReader(path)
    assert (reader.info.width, reader.info.height) == (width, height)
    assert reader.info.fps == frame_rate(fps)
    assert reader.info.frame_count == frames == len(reader)
    assert reader.info.duration == pytest.approx(frames / frame_rate(fps))
    assert np.stack(list(reader)).shape == (frames, height, width, 3)


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_formats_are_bit_exact_at_their_depth(tmp_path, name):
    random = np.random.default_rng(1)
    depth = FORMATS[name].depth
    dtype = np.uint8 if depth == 8 else np.uint16
    clip = random.integers(0, 1 << depth, (3, 33, 47, 3)).astype(dtype)
    path = write(target(tmp_path, name), clip, format=name)
    assert np.array_equal(read(path, depth=depth), clip)


def test_webp_of_quality_100_is_bit_exact(tmp_path):
    clip = np.random.default_rng(2).integers(0, 256, (3, 21, 35, 3)).astype(np.uint8)
    assert np.array_equal(read(write(tmp_path / "a.webp", clip, quality=100)), clip)


@pytest.mark.parametrize("name", MOVING)
def test_the_default_quality_loses_little_of_a_natural_clip(tmp_path, name):
    clip = natural(8, 96, 128)
    path = write(target(tmp_path, name), clip, format=name)
    assert psnr(read(path), clip) >= 40


@pytest.mark.parametrize("name", some_slow(FORMATS))
def test_flat_colours_come_back_within_one_step(tmp_path, name):
    """The eight corners of the RGB cube and mid-grey as patches of one picture: mean error of each below 1/255."""
    colours = np.array([*itertools.product((0, 255), repeat=3), (128, 128, 128)], np.uint8)
    picture = colours.reshape(3, 3, 3).repeat(48, 0).repeat(48, 1)
    got = read(write(target(tmp_path, name), [picture] * 3, format=name)).astype(float)
    for index, colour in enumerate(colours):
        y, x = index // 3 * 48 + 12, index % 3 * 48 + 12  # away from the edges, where 4:2:0 mixes neighbours
        error = np.abs(got[:, y : y + 24, x : x + 24] - colour).mean()
        assert error < 1, f"{colour} came back with a mean error of {error:.2f}"


@pytest.mark.parametrize("name", some_slow(name for name in FORMATS if FORMATS[name].yuv))
def test_another_decoder_reads_bt709_in_limited_range(tmp_path, name):
    av = pytest.importorskip("av", reason="PyAV, the second decoder, is not installed")
    colours = {"r": (255, 0, 0), "g": (0, 255, 0), "b": (0, 0, 255), "grey": (128, 128, 128), "white": (255, 255, 255)}
    for label, colour in colours.items():
        clip = np.broadcast_to(np.array(colour, np.uint8), (1, 64, 64, 3))
        path = write(tmp_path / f"{label}{FORMATS[name].extension}", clip, format=name)
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            frame = next(container.decode(stream))
            dtype, step = (np.dtype("<u2"), 4) if "10" in frame.format.name else (np.uint8, 1)
            rows = [np.frombuffer(plane, dtype).reshape(plane.height, -1)[:, : plane.width] for plane in frame.planes]
            y, u, v = (plane.mean() / step for plane in rows)
            assert int(frame.colorspace) == 1  # bt709
            assert int(frame.color_range) == 1  # limited
        r, g, b = (c / 255 for c in colour)  # ITU-R BT.709-6, section 3
        luma = 0.2126 * r + 0.7152 * g + 0.0722 * b
        expected = 16 + 219 * luma, 128 + 224 * (b - luma) / 1.8556, 128 + 224 * (r - luma) / 1.5748
        assert np.allclose((y, u, v), expected, atol=1.2), (label, (y, u, v), expected)


@pytest.mark.parametrize("name", some_slow(WITH_SOUND))
@pytest.mark.parametrize("seconds", [0.2, pytest.param(3, marks=pytest.mark.slow)])
def test_sound_has_the_length_of_the_pictures_and_is_in_step(tmp_path, name, seconds):
    clip, audio = natural(25, 64, 64), tone(seconds)
    path = write(target(tmp_path, name), clip, 25, format=name, audio=audio)
    reader = VideoReader(path)
    assert reader.info.frame_count == 25
    assert reader.info.audio.channels == 2
    sound = reader.audio()
    assert abs(sound.samples.shape[1] - 48000) <= 1
    wanted = np.zeros(48000, np.float32)
    wanted[: min(48000, round(seconds * 48000))] = audio["waveform"][0, 0][:48000]
    got = np.pad(sound.samples[0], (0, 1))[:48000]
    lags = range(-480, 481, 4)
    best = max(lags, key=lambda lag: float(np.dot(np.roll(got, lag)[1000:-1000], wanted[1000:-1000])))
    assert abs(best) <= 8, f"the sound is shifted by {best / 48:.2f} ms"
    assert np.abs(sound.samples[1]).max() < np.abs(sound.samples[0]).max()


@pytest.mark.parametrize("name", ["ffv1-mkv", "prores-mov"])
def test_lossless_sound_is_exact_to_24_bits(tmp_path, name):
    audio = tone(1, rate=44100)
    path = write(target(tmp_path, name), natural(24, 32, 32), 24, format=name, audio=audio)
    sound = VideoReader(path).audio()
    assert sound.rate == 44100
    assert np.abs(sound.samples - audio["waveform"][0]).max() < 2**-22


def test_sound_in_a_silent_format_is_refused(tmp_path):
    with pytest.raises(T2VError, match="no sound"):
        VideoWriter(tmp_path / "a.gif", 8, audio=tone(1))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32", "float64", "torch float", "torch bfloat16"])
def test_frames_of_every_type_are_accepted(tmp_path, kind):
    clip = natural(2, 32, 32)
    given = {"uint8": clip, "uint16": clip.astype(np.uint16) * 257}.get(kind)
    if given is None:
        given = clip / (np.float32(255) if kind != "float64" else 255.0)
    if kind.startswith("torch"):
        torch = pytest.importorskip("torch")
        given = torch.from_numpy(given).to(torch.bfloat16 if "bfloat16" in kind else torch.float32)
    got = read(write(tmp_path / "clip.mkv", given))
    assert np.abs(got.astype(int) - clip).max() <= (1 if "bfloat16" in kind else 0)


def test_numbers_outside_0_to_1_are_clipped_and_nan_is_black(tmp_path, caplog):
    frame = np.full((16, 16, 3), 2.0, np.float32)
    frame[:8] = -1
    frame[0, 0] = np.nan
    got = read(write(tmp_path / "clip.mkv", [frame] * 3))[0]
    assert (got[8:] == 255).all()
    assert (got[:8] == 0).all()
    assert caplog.text.count("NaN") == 1, "once for the clip"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["h264-mp4", "h265-mp4", "vp9-webm", "av1-webm", "prores-mov", "webp", "gif"])
def test_a_higher_quality_gives_a_larger_and_better_file(tmp_path, name):
    clip, sizes, values = natural(4, 96, 96), [], []
    for quality in (10, 50, 80, 100):
        path = write(tmp_path / f"{quality}{FORMATS[name].extension}", clip, format=name, quality=quality)
        sizes.append(path.stat().st_size)
        values.append(psnr(read(path), clip))
    assert sizes == sorted(sizes)
    assert values == sorted(values)
    assert values[-1] > values[0] + 3


def test_ten_bits_store_more_than_eight(tmp_path):
    ramp = np.linspace(0.2, 0.3, 256, dtype=np.float32)[None, :, None].repeat(64, 0).repeat(3, 2)
    steps = {}
    for name in ("h264-mp4", "h264-10bit-mp4"):
        path = write(tmp_path / f"{name}.mp4", [ramp], format=name, quality=100)
        steps[name] = len(np.unique(read(path, depth=16)[0, 32, :, 1]))
    assert steps["h264-10bit-mp4"] > 2 * steps["h264-mp4"]


def test_prores_of_the_best_quality_keeps_the_colour_of_single_columns(tmp_path):
    frame = np.zeros((32, 64, 3), np.uint8)
    frame[:, ::2, 0] = frame[:, 1::2, 2] = 200
    spread = []
    for quality in (80, 100):
        with VideoWriter(tmp_path / f"{quality}.mov", 24, quality=quality) as video:
            video.write(frame)
        (read,) = VideoReader(tmp_path / f"{quality}.mov")
        spread.append(float(np.abs(read.astype(int) - frame).mean()))
    assert spread[1] < 6 < 30 < spread[0]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 50, 3), (40, 1, 3), (3, 5, 3)])
def test_the_smallest_frames_come_back_in_their_size(tmp_path, name, shape):
    path = write(target(tmp_path, name), [np.full(shape, 90, np.uint8)] * 2, 8, format=name)
    assert [frame.shape for frame in VideoReader(path)] == [shape] * 2


@pytest.mark.parametrize(("loop", "gif", "webp"), [(0, 0, 0), (2, 2, 3), (65_534, 65_534, 65_535)])
def test_loop_counts_are_stored(tmp_path, loop, gif, webp):
    image = pytest.importorskip("PIL.Image")
    clip = natural(3, 32, 32)
    assert image.open(write(tmp_path / "a.gif", clip, loop=loop)).info["loop"] == gif
    assert image.open(write(tmp_path / "a.webp", clip, loop=loop)).info["loop"] == webp


def test_frame_times_of_a_gif_sum_up_to_the_rate(tmp_path):
    image = pytest.importorskip("PIL.Image")
    sequence = pytest.importorskip("PIL.ImageSequence")
    with image.open(write(tmp_path / "a.gif", natural(24, 32, 32), 24)) as gif:
        assert sum(frame.info["duration"] for frame in sequence.Iterator(gif)) == 1000


@pytest.mark.slow
def test_a_still_picture_keeps_its_frame_count(tmp_path):
    """Encoders that see no change must not drop frames."""
    clip = np.full((6, 64, 64, 3), 90, np.uint8)
    for name in FORMATS:
        reader = VideoReader(write(target(tmp_path / name, name), clip, format=name))
        assert reader.info.frame_count == 6, name
        assert len(list(reader)) == 6, name


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"path": "a.xyz"}, "ends in none of"),
        ({"path": "a.mp4", "format": "mpeg"}, "no video format"),
        ({"path": "a.mp4", "format": "vp9-webm"}, "ends in .webm"),
        ({"path": "a.mp4", "fps": 0}, "frame rate"),
        ({"path": "a.mp4", "fps": "x"}, "frame rate"),
        ({"path": "a.mp4", "fps": float("nan")}, "frame rate"),
        ({"path": "a.gif", "fps": 120}, "hundredths"),
        ({"path": "a.mp4", "quality": 101}, "quality"),
        ({"path": "a.mp4", "audio": {"waveform": 1}}, "Audio must be"),
        ({"path": "a.mp4", "audio": {"waveform": np.zeros((2, 1, 9)), "sample_rate": 8000}}, "shape"),
        ({"path": "a.mp4", "metadata": {"Big Key": "x"}}, "Metadata"),
        ({"path": "a.mp4", "metadata": {"key": "a\0b"}}, "NUL"),
    ],
)
def test_a_wrong_option_is_refused_with_one_sentence(tmp_path, options, sentence):
    options = {"fps": 8, **options}
    with pytest.raises(T2VError, match=sentence):
        VideoWriter(tmp_path / options.pop("path"), options.pop("fps"), **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        (np.zeros((8, 8)), "shape"),
        (np.zeros((8, 8, 4)), "shape"),
        (np.zeros((0, 8, 3)), "shape"),
        (np.zeros((8, 8, 3), np.int64), "int64"),
        (np.zeros((9, 8, 3), np.uint8), "alike"),
    ],
)
def test_a_wrong_frame_is_refused_and_nothing_is_left(tmp_path, frame, sentence):
    with pytest.raises(T2VError, match=sentence):
        write(tmp_path / "a.mkv", [np.zeros((8, 8, 3), np.uint8), frame])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("value", "rate"),
    [
        (24, Fraction(24)),
        (23.976, Fraction(24000, 1001)),
        (23.98, Fraction(24000, 1001)),
        (29.97, Fraction(30000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (12.5, Fraction(25, 2)),
        ("30000/1001", Fraction(30000, 1001)),
        (Fraction(7, 3), Fraction(7, 3)),
    ],
)
def test_rates_are_fractions(value, rate):
    assert frame_rate(value) == rate


LIMITS = [
    ("gif", {"fps": 60}, "too many"),
    ("gif", {"fps": 100}, "too many"),
    ("gif", {"fps": Fraction(1, 1000)}, "too few"),
    ("webp", {"fps": 120}, "too many"),
    ("gif", {"loop": 65_536}, "1 to 65535 times"),
    ("webp", {"loop": 65_535}, "1 to 65534 times"),
    ("gif", {"loop": -1}, "0 for ever"),
    ("av1-webm", {"fps": 300}, "too many"),
    ("webp", {"metadata": {f"k{n}": "x" for n in range(9)}}, "at most 8 texts"),
    ("gif", {"metadata": {"workflow": "x" * (17 << 20)}}, "leave out its largest"),
    ("h264-mp4", {"metadata": {"workflow": "x" * (65 << 20)}}, "leave out its largest"),
]


@pytest.mark.parametrize(("name", "options", "sentence"), LIMITS)
def test_what_a_format_cannot_hold_is_refused_before_the_first_frame(tmp_path, name, options, sentence):
    with pytest.raises(T2VError, match=sentence):
        VideoWriter(target(tmp_path, name), format=name, **{"fps": 8, **options})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "width", "height"),
    [("h264-mp4", 16_400, 16), ("webp", 16, 16_384), ("gif", 65_536, 1), ("av1-webm", 64, 8_706), ("png", 1, 65_536)],
)
def test_frames_that_are_too_large_for_a_format_are_refused_before_ffmpeg_starts(
    tmp_path, monkeypatch, name, width, height
):
    monkeypatch.setattr(type(engine()), "encoder", None)
    with pytest.raises(T2VError, match="too large"):
        write(target(tmp_path, name), [np.zeros((height, width, 3), np.uint8)], 8, format=name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fps", [50, Fraction(100, 3), 24, 10, "1/600"])
def test_browsers_show_a_gif_as_long_as_it_lasts(tmp_path, fps):
    """They show a frame of one hundredth of a second or less for ten."""
    image = pytest.importorskip("PIL.Image")
    sequence = pytest.importorskip("PIL.ImageSequence")
    with image.open(write(tmp_path / "a.gif", natural(6, 16, 16), fps)) as gif:
        delays = [frame.info["duration"] for frame in sequence.Iterator(gif)]
    shown = sum(100 if delay <= 10 else delay for delay in delays) / 1000
    assert shown == pytest.approx(6 / frame_rate(fps), abs=0.02)


@pytest.mark.parametrize(
    "name", [name for name in WITH_SOUND if FORMATS[name].plays or name in ("ffv1-mkv", "prores-mov")]
)
@pytest.mark.parametrize("channels", [1, 3, 4, 7, 8])
def test_every_number_of_channels_comes_back(tmp_path, name, channels):
    audio = tone(0.5, channels=channels)
    audio["waveform"] = audio["waveform"] / 8  # below full scale
    path = write(target(tmp_path, name), natural(4, 64, 64), 8, format=name, audio=audio)
    sound = VideoReader(path).audio()
    assert sound.samples.shape == (channels, 24_000)
    if name in ("ffv1-mkv", "prores-mov"):
        assert np.abs(sound.samples - audio["waveform"][0][:, :24_000]).max() < 2**-22


@pytest.mark.parametrize(("name", "rate", "stored"), [("h264-mp4", 192_000, 96_000), ("h264-mp4", 4_000, 7_350),
                                                      ("ffv1-mkv", 768_000, 655_350), ("vp9-webm", 44_100, 48_000)])  # fmt: skip
def test_sound_of_a_rate_that_the_codec_lacks_is_resampled(tmp_path, name, rate, stored):
    path = write(target(tmp_path, name), natural(4, 64, 64), 8, format=name, audio=tone(0.5, rate=rate))
    sound = VideoReader(path).audio()
    assert sound.rate == stored
    assert sound.samples.shape[1] == pytest.approx(stored / 2, abs=2)


def test_sound_that_the_ffmpeg_cannot_encode_is_refused_before_the_first_frame(tmp_path, monkeypatch):
    def refuse(*_):
        raise Failed("Unsupported channel layout")

    everything = engine().abilities("encoders")
    monkeypatch.setattr(type(engine()), "abilities", lambda self, kind: everything - {"libopus"})
    with pytest.raises(T2VError, match="libopus"):
        VideoWriter(tmp_path / "a.webm", 8, audio=tone(1))
    monkeypatch.undo()
    monkeypatch.setattr(type(engine()), "check_sound", refuse)
    with pytest.raises(T2VError, match="Unsupported channel layout"):
        VideoWriter(tmp_path / "a.mp4", 8, audio=tone(1))
    assert not list(tmp_path.iterdir())
