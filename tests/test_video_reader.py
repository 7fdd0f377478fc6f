"""Reading: some of the frames, at another rate or size; and the facts of a file before a frame is decoded."""

from __future__ import annotations

import subprocess
from fractions import Fraction

import numpy as np
import pytest

from t2v_models.errors import T2VError
from t2v_models.video import FORMATS, Audio, VideoReader, VideoWriter
from t2v_models.video.ffmpeg import process as ffmpeg_module

from .support.engines import every_engine, program_only  # noqa: F401
from .support.video_clips import natural, tone

pytest.importorskip("imageio_ffmpeg")


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """A lossless clip of 30 frames at 15 a second, with sound; the brightness of frame n is 8 n."""
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    with VideoWriter(path, 15, audio=tone(2)) as video:
        for n in range(30):
            video.write(np.full((24, 40, 3), 8 * n, np.uint8))
    return path


def numbers(reader):
    return [int(frame[0, 0, 0]) // 8 for frame in reader]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, list(range(30))),
        ({"start": 5}, list(range(5, 30))),
        ({"count": 4}, [0, 1, 2, 3]),
        ({"every": 7}, [0, 7, 14, 21, 28]),
        ({"start": 3, "every": 4, "count": 3}, [3, 7, 11]),
        ({"start": 28, "count": 9}, [28, 29]),
        ({"fps": 5}, list(range(1, 30, 3))),
        ({"fps": 30, "count": 6}, [0, 0, 1, 1, 2, 2]),
        ({"fps": 5, "start": 2, "every": 2}, [7, 13, 19, 25]),
    ],
)
def test_the_chosen_frames_are_returned_in_order(numbered, options, wanted):
    reader = VideoReader(numbered, **options)
    got = numbers(reader)
    assert len(got) == len(wanted) == len(reader)
    assert all(abs(a - b) <= (1 if "fps" in options else 0) for a, b in zip(got, wanted, strict=True)), got


@pytest.mark.parametrize(("frames", "rate", "fps", "count"), [(81, 30, 15, 41), (20, 8, 1, 3), (4, 8, 1, 1)])
def test_the_length_is_right_where_a_clip_ends_in_half_a_frame(tmp_path, frames, rate, fps, count):
    with VideoWriter(tmp_path / "clip.mp4", rate) as video:
        for _ in range(frames):
            video.write(np.zeros((24, 40, 3), np.uint8))
    reader = VideoReader(tmp_path / "clip.mp4", fps=fps)
    assert len(list(reader)) == len(reader) == count


def test_a_start_after_the_end_returns_no_frames(numbered):
    reader = VideoReader(numbered, start=99)
    assert (len(reader), list(reader)) == (0, [])


def test_the_rate_is_that_of_the_returned_frames(numbered):
    assert VideoReader(numbered, every=4).rate == Fraction(15, 4)
    assert VideoReader(numbered, fps=29.97, every=2).rate == Fraction(15000, 1001)


@pytest.mark.parametrize(
    ("size", "wanted"), [((20, 12), (20, 12)), ((80, 0), (80, 48)), ((0, 12), (20, 12)), ((33, 7), (33, 7))]
)
def test_frames_are_scaled(numbered, size, wanted):
    reader = VideoReader(numbered, size=size, count=2)
    assert reader.size == wanted
    assert next(iter(reader)).shape == (wanted[1], wanted[0], 3)
    assert numbers(reader) == [0, 1]


def test_the_sound_belongs_to_the_returned_frames(numbered):
    whole = VideoReader(numbered).audio()
    part = VideoReader(numbered, start=6, count=9).audio()
    assert part.samples.shape == (2, 28800)
    assert np.abs(part.samples - whole.samples[:, 19200:48000]).max() < 1e-6
    assert VideoReader(numbered, start=99).audio().samples.shape[1] == 0


def test_a_reader_can_be_read_again_and_stopped_early(numbered):
    reader = VideoReader(numbered)
    first = next(iter(reader))
    assert np.array_equal(first, next(iter(reader)))
    assert numbers(reader) == list(range(30))


@pytest.mark.usefixtures("program_only")
def test_stopping_early_ends_ffmpeg(numbered, monkeypatch):
    started = []
    popen = subprocess.Popen

    def watched(*arguments, **options):
        started.append(popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", watched)
    frames = iter(VideoReader(numbered, size=(2048, 2048)))
    next(frames)
    frames.close()
    assert started
    assert all(process.poll() is not None for process in started)


@pytest.mark.slow
def test_a_file_without_tags_has_its_exact_rate(tmp_path):
    """In files of other programs the rate follows from the time stamps, which webm and mkv round to 1 ms."""
    for name, fps in (("vp9-webm", "24000/1001"), ("vp9-webm", "60000/1001"), ("vp9-webm", 25), ("vp9-webm", 144),
                      ("h264-mp4", "24000/1001"), ("h264-mp4", "25/2"), ("gif", 25), ("webp", 40)):  # fmt: skip
        path, bare = tmp_path / f"a{FORMATS[name].extension}", tmp_path / f"b{FORMATS[name].extension}"
        with VideoWriter(path, fps, format=name, overwrite=True) as video:
            for frame in natural(150, 16, 16):
                video.write(frame)
        copy = ["-i", str(path), "-map_metadata", "-1", "-c", "copy"]
        if name == "webp":
            data = path.read_bytes()
            bare.write_bytes(data[: data.rindex(b"EXIF")])  # too short: the header has the old size
            with pytest.raises(T2VError, match="cut off"):
                VideoReader(bare)
            size = bare.stat().st_size - 8
            bare.write_bytes(data[:4] + size.to_bytes(4, "little") + data[8 : size + 8])
        else:
            assert ffmpeg_module.run([*copy, str(bare)])[0] == 0
        info = VideoReader(bare).info
        assert info.fps == Fraction(fps), name
        assert info.frame_count == 150, name


def test_a_stored_rate_that_contradicts_the_time_stamps_is_ignored(tmp_path):
    path, slow = tmp_path / "a.mp4", tmp_path / "b.mp4"
    with VideoWriter(path, 24) as video:
        for frame in natural(60, 16, 16):
            video.write(frame)
    arguments = ["-itsscale", "2", "-i", str(path), "-c", "copy", "-movflags", "use_metadata_tags", str(slow)]
    assert ffmpeg_module.run(arguments)[0] == 0
    assert VideoReader(slow).info.fps == 12


def test_a_rotated_clip_has_its_rotated_size(tmp_path):
    path, turned = tmp_path / "a.mp4", tmp_path / "b.mp4"
    with VideoWriter(path, 24) as video:
        for frame in natural(2, 32, 64):
            video.write(frame)
    assert ffmpeg_module.run(["-display_rotation", "90", "-i", str(path), "-c", "copy", str(turned)])[0] == 0
    reader = VideoReader(turned)
    assert reader.size == (32, 64)
    assert next(iter(reader)).shape == (64, 32, 3)


def test_a_clip_without_a_colour_matrix_is_read_as_in_players(tmp_path):
    """bt709 from 720 rows on, bt601 below."""
    for height, matrix in ((720, "bt709"), (480, "bt601")):
        path = tmp_path / f"{height}.mkv"
        source = f"color=c=red:s=64x{height}:r=10:d=0.2,format=rgb24,scale=out_color_matrix={matrix},format=yuv420p"
        strip = "setparams=colorspace=unknown:color_primaries=unknown:color_trc=unknown"
        code = ["-f", "lavfi", "-i", f"{source},{strip}", "-c:v", "ffv1", str(path)]
        assert ffmpeg_module.run(code)[0] == 0
        assert VideoReader(path).info.colour is None
        assert np.abs(next(iter(VideoReader(path))).astype(int) - (255, 0, 0)).max() <= 3


def test_a_folder_of_frames_begins_at_any_number_and_a_gap_is_reported(tmp_path, caplog):
    folder = tmp_path / "100% %05d [x]"
    with VideoWriter(folder, 12) as video:
        for frame in natural(4, 8, 8):
            video.write(frame)
    assert sorted(path.name for path in folder.iterdir()) == [f"{n:05d}.png" for n in range(4)]
    whole = np.stack(list(VideoReader(folder)))
    assert np.array_equal(whole, natural(4, 8, 8))
    for n in range(4):
        (folder / f"{n:05d}.png").rename(folder / f"shot %d_{n + 7}.png")
    assert np.array_equal(np.stack(list(VideoReader(folder))), whole)
    (folder / "shot %d_9.png").unlink()
    assert np.array_equal(np.stack(list(VideoReader(folder))), whole[[0, 1, 3]])
    assert "shot %d_9" in caplog.text
    with pytest.raises(T2VError, match="without numbered PNG"):
        VideoReader(tmp_path)


@pytest.mark.parametrize(
    "options", [{"start": -1}, {"every": 0}, {"count": 0}, {"fps": 0}, {"size": (0, 0)}, {"size": (1, -1)}]
)
def test_a_wrong_option_is_refused(numbered, options):
    with pytest.raises(T2VError):
        VideoReader(numbered, **options)


def test_a_playlist_cannot_open_other_files(tmp_path, numbered):
    """A "video" that is a list of files must not make ffmpeg open them."""
    lists = {
        "a.mp4": f"ffconcat version 1.0\nfile '{numbered}'\n",
        "b.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile://{numbered}\n#EXT-X-ENDLIST\n",
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(T2VError, match="no video that ffmpeg can read"):
            list(VideoReader(tmp_path / name))


def remade(path, *options, source=None, before=()):
    """Make another file from a clip with ffmpeg itself."""
    exe = ffmpeg_module.ffmpeg_exe()
    inputs = ["-i", source] if source else []
    subprocess.run([exe, "-v", "error", "-y", *before, *inputs, *options, path], check=True)
    if subprocess.run([exe, "-v", "error", "-i", path, "-f", "null", "-"], check=False).returncode < 0:
        pytest.skip(f"this ffmpeg itself crashes on a {path.suffix}")
    return path


def with_burst(path, fps, frames, at):
    """A clip with silence but for 0.025 s of sound, `at` seconds from its start."""
    sound = np.zeros((1, 48_000 * frames // fps), np.float32)
    sound[:, round(48_000 * at) :][:, :1_200] = 0.9
    with VideoWriter(path, fps, audio=Audio(sound, 48_000)) as video:
        for n in range(frames):
            video.write(np.full((32, 32, 3), 10 * n, np.uint8))
    return path


@pytest.mark.parametrize("text", ["my data", '{"save_metadata": true}'])
def test_sound_is_read_whatever_the_tags_of_the_file_contain(tmp_path, numbered, text):
    tagged = remade(tmp_path / "clip.mkv", "-c", "copy", "-metadata", f"comment={text}", source=numbered)
    assert np.array_equal(VideoReader(tagged).audio().samples, VideoReader(numbered).audio().samples)


@pytest.mark.parametrize("delay", [0.4, -0.2])
@pytest.mark.parametrize("ending", ["mkv", "mov", "ts"])
def test_sound_begins_where_the_picture_does(tmp_path, ending, delay):
    """One burst, 0.6 s into the sound; the picture begins later than the sound, or before it."""
    if ending == "mov" and ffmpeg_module.version(ffmpeg_module.ffmpeg_exe()) < (61, 19):
        pytest.skip("ffmpeg before 7.1 writes no delay into a mov")
    source = with_burst(tmp_path / "source.mkv", fps=10, frames=20, at=0.6)
    codecs = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "mp2" if ending == "ts" else "pcm_s16le")
    first, second = (("-itsoffset", str(delay)), ()) if delay > 0 else ((), ("-itsoffset", str(-delay)))
    inputs = (*first, "-i", source, *second, "-i", source, "-map", "0:v", "-map", "1:a")
    path = remade(tmp_path / f"clip.{ending}", *inputs, *codecs)
    samples = VideoReader(path).audio().samples[0]
    begin = int((np.abs(samples) > 0.3).argmax()) / 48_000
    assert begin == pytest.approx(0.6 - delay, abs=0.05)


def test_joined_recordings_have_their_rate_and_all_their_sound(tmp_path):
    source = with_burst(tmp_path / "source.mkv", fps=25, frames=25, at=0.5)
    part = remade(
        tmp_path / "part.ts", "-c:v", "libx264", "-bf", "0", "-pix_fmt", "yuv420p", "-c:a", "mp2", source=source
    )
    joined = tmp_path / "joined.ts"
    joined.write_bytes(2 * part.read_bytes())
    reader = VideoReader(joined)
    assert (reader.rate, len(list(reader))) == (25, 50)
    loud = np.abs(reader.audio().samples[0]) > 0.3
    assert loud[20_000:30_000].any()
    assert loud[66_000:80_000].any()


def test_a_clip_that_was_trimmed_without_encoding_it_again_is_complete(tmp_path):
    source = tmp_path / "source.mp4"
    with VideoWriter(source, 10) as video:
        for n in range(60):
            video.write(np.full((32, 32, 3), 4 * n, np.uint8))
    path = remade(tmp_path / "trimmed.mp4", "-c", "copy", source=source, before=("-ss", "2.5"))
    reader = VideoReader(path)
    levels = [frame.mean() / 4 for frame in reader]
    assert len(levels) == len(reader)
    assert levels[0] == pytest.approx(25, abs=1.5)


def test_an_avi_with_frames_out_of_order_has_its_rate(tmp_path, numbered):
    path = remade(tmp_path / "clip.avi", "-c:v", "mpeg4", "-bf", "2", "-q:v", "2", "-c:a", "mp2", source=numbered)
    reader = VideoReader(path)
    assert reader.rate == 15
    assert len(list(reader)) in (29, 30)
    assert VideoReader(path, fps=5).audio().samples.shape[1] == pytest.approx(96_000, abs=4_000)


def test_colour_primaries_are_not_read_as_the_matrix(tmp_path):
    """A file of 720 rows or more without a matrix is read as bt709, also where it names the primaries."""
    source = "color=c=green:s=64x720:r=10:d=0.2,format=rgb24,scale=out_color_matrix=bt709,format=yuv420p"
    named = "setparams=colorspace=unknown:color_primaries=bt709:color_trc=bt709"
    path = remade(tmp_path / "clip.mkv", "-f", "lavfi", "-i", f"{source},{named}", "-c:v", "ffv1")
    reader = VideoReader(path)
    assert reader.info.colour is None
    assert np.abs(next(iter(reader)).astype(int) - (0, 128, 0)).max() <= 3
