"""A workflow comes out of every container byte for byte, also where ComfyUI's editor looks for it."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from t2v_models.errors import T2VError
from t2v_models.video import FORMATS, VideoReader, VideoWriter, json_text, read_embedded, still_png
from t2v_models.video.metadata import ffmetadata, parse_ffmetadata

from .support.engines import every_engine, program_only  # noqa: F401
from .support.video_clips import WORKFLOW, natural, some_slow, tone

pytest.importorskip("imageio_ffmpeg")

BIG = WORKFLOW * 100 + '漢字 "quoted" 😀 it\'s {=;#\\} é' * 30_000


def store(folder, name, metadata, sound=False, frames=2, size=(64, 64)):
    path = folder / f"clip{FORMATS[name].extension}"
    with VideoWriter(path, 24, format=name, metadata=metadata, audio=tone(0.1) if sound else None) as video:
        for frame in natural(frames, *size):
            video.write(frame)
    return path


@pytest.mark.parametrize("sound", [False, True])
@pytest.mark.parametrize("name", some_slow(FORMATS))
def test_a_megabyte_of_text_comes_back_byte_for_byte(tmp_path, name, sound):
    if sound and not FORMATS[name].audio:
        pytest.skip("holds no sound")
    path = store(tmp_path, name, {"workflow": BIG, "prompt": WORKFLOW}, sound)
    info = VideoReader(path).info
    assert len(BIG.encode()) > 1_000_000
    assert info.metadata == {"workflow": BIG, "prompt": WORKFLOW}
    assert (info.audio is not None) == sound
    assert len(list(VideoReader(path))) == 2


@pytest.mark.parametrize("name", some_slow(FORMATS))
def test_a_clip_without_metadata_has_none(tmp_path, name):
    assert VideoReader(store(tmp_path, name, None)).info.metadata == {}


def test_text_that_looks_like_ffmpegs_output_is_only_text(tmp_path):
    trap = "\n  Stream #0:0: Video: h264, yuv420p, 9999x9999, 1 fps\r  Duration: 99:00:00\n[STREAM]\nx=y\n;FFMETADATA1"
    for name in ("h264-mp4", "ffv1-mkv"):
        info = VideoReader(store(tmp_path, name, {"workflow": trap, "title": trap})).info
        assert (info.width, info.height, info.fps) == (64, 64, 24)
        assert info.metadata == {"workflow": trap, "title": trap}


def test_ffmetadata_is_parsed_as_it_was_written():
    texts = {"a": WORKFLOW, "b": "\\", "c": "\n\n", "d": "=;#", "e": " x ", "f": "\\\n="}
    assert parse_ffmetadata(ffmetadata(texts)) == texts


def test_json_text_is_ascii_with_balanced_braces_and_an_equal_value():
    value = {"a{": ["}}}{", 'x"{\\"}', "漢字 😀\n"], "b": {"c": {}, "d": "\\{"}}
    text = json_text(value)
    assert json.loads(text) == value
    assert text.isascii()
    depth = 0
    for index, character in enumerate(text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth > 0 or index == len(text) - 1, "the editor would stop reading here"


# What follows reads the files as ComfyUI's graph editor does: src/scripts/metadata/*.ts and src/scripts/pnginfo.ts.


def boxes(data, start, end):
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        yield kind, start + 8, start + size
        if size < 8:
            return
        start += size


def box(data, kind, start, end):
    return next(((a, b) for found, a, b in boxes(data, start, end) if found == kind), None)


@pytest.mark.parametrize(("name", "sound"), [("h264-mp4", False), ("h264-mp4", True), ("h265-10bit-mp4", True)])
def test_the_editor_finds_the_workflow_in_the_first_2_mib_of_an_mp4(tmp_path, name, sound):
    texts = {"workflow": json_text({"big": "x{" * 200_000}), "prompt": json_text({"1": "}"})}
    path = store(tmp_path, name, texts, sound, frames=40, size=(256, 256))
    data = path.read_bytes()[: 2 << 20]
    moov = box(data, b"moov", 0, len(data))
    udta = box(data, b"udta", *moov)
    meta = box(data, b"meta", *udta)
    keys, ilst = (box(data, kind, meta[0] + 4, meta[1]) for kind in (b"keys", b"ilst"))
    names = [data[a:b].decode() for _, a, b in boxes(data, keys[0] + 8, keys[1])]
    found = {}
    for index, a, b in boxes(data, *ilst):
        start, stop = box(data, b"data", a, b)
        found[names[int.from_bytes(index, "big") - 1]] = data[start + 8 : stop].decode()
    assert {key: found[key] for key in texts} == texts
    mdat = next((a for kind, a, b in boxes(data, 0, len(data)) if kind == b"mdat"), len(data))
    assert mdat > moov[0], "the pictures must come behind the tags"


@pytest.mark.parametrize("sound", [False, True])
def test_the_editor_finds_the_workflow_in_the_first_2_mib_of_a_webm(tmp_path, sound):
    texts = {"workflow": json_text({"big": "x{" * 100_000}), "prompt": json_text({"1": "}"})}
    data = store(tmp_path, "vp9-webm", texts, sound, frames=40, size=(256, 256)).read_bytes()[: 2 << 20]

    def vint(at):
        length = 9 - data[at].bit_length()
        return int.from_bytes(data[at : at + length], "big") & (1 << 7 * length) - 1, at + length

    found, at = {}, 0
    while (at := data.find(b"\x67\xc8", at)) >= 0:  # SimpleTag
        size, start = vint(at + 2)
        tag = data[start : start + size]
        if len(tag) == size and (name := tag.find(b"\x45\xa3")) >= 0 and (value := tag.find(b"\x44\x87")) >= 0:
            (n, a), (m, b) = vint(start + name + 2), vint(start + value + 2)
            found[data[a : a + n].decode()] = data[b : b + m].decode()
            at = start + size
        else:
            at += 1
    assert found["WORKFLOW"] == texts["workflow"]
    assert found["PROMPT"] == texts["prompt"]


@pytest.mark.parametrize("frames", [1, 3])
def test_the_editor_and_pillow_find_a_webps_workflow(tmp_path, frames):
    image = pytest.importorskip("PIL.Image")
    texts = {"workflow": json_text({"big": "x{" * 100_000}), "prompt": json_text({"1": "}"})}
    path = store(tmp_path, "webp", texts, frames=frames, size=(33, 65))
    with image.open(path) as picture:
        exif = picture.getexif()
        assert picture.n_frames == frames
        assert exif[0x010F] == "workflow:" + texts["workflow"]
        assert exif[0x0110] == "prompt:" + texts["prompt"]
        picture.seek(frames - 1)
        assert picture.convert("RGB").size == (65, 33)
    data, at = path.read_bytes(), 12
    while data[at : at + 4] != b"EXIF":  # the editor does not skip the byte that pads an odd chunk
        at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")
    assert len(data) == 8 + int.from_bytes(data[4:8], "little")


@pytest.mark.parametrize("name", ["png", "png-16bit"])
def test_pillow_finds_a_pngs_workflow_in_the_first_frame_only(tmp_path, name):
    image = pytest.importorskip("PIL.Image")
    texts = {"workflow": json_text({"a": "漢"}), "note": "漢字\n"}
    path = store(tmp_path, name, texts)
    with image.open(path / "00000.png") as first, image.open(path / "00001.png") as second:
        assert first.text["workflow"] == texts["workflow"]
        assert first.text["note"] == texts["note"]
        assert "workflow" not in second.text


def test_pillow_and_ffmpeg_still_read_a_gif_with_metadata(tmp_path):
    image = pytest.importorskip("PIL.Image")
    path = store(tmp_path, "gif", {"workflow": BIG}, frames=3)
    with image.open(path) as gif:
        assert gif.n_frames == 3
    assert len(list(VideoReader(path))) == 3


def test_texts_in_files_of_the_host_are_read(tmp_path):
    """ComfyUI's own animated WebP and PNG, written with Pillow."""
    image = pytest.importorskip("PIL.Image")
    pnginfo = pytest.importorskip("PIL.PngImagePlugin")
    frames = [image.fromarray(frame) for frame in natural(3, 32, 32)]
    exif = frames[0].getexif()
    exif[0x0110], exif[0x010F] = 'prompt:{"1": "a:b"}', 'workflow:{"x": 1}'
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], duration=100, exif=exif)
    assert read_embedded(tmp_path / "a.webp") == {"prompt": '{"1": "a:b"}', "workflow": '{"x": 1}'}
    info = VideoReader(tmp_path / "a.webp").info
    assert (info.frame_count, info.fps) == (3, 10)
    text = pnginfo.PngInfo()
    text.add_text("workflow", "{}")
    text.add_itxt("note", "漢字", zip=True)
    text.add_text("packed", "a" * 999, zip=True)
    frames[0].save(tmp_path / "a.png", pnginfo=text)
    assert read_embedded(tmp_path / "a.png") == {"workflow": "{}", "note": "漢字", "packed": "a" * 999}


def test_a_png_beside_a_video_holds_its_texts_and_a_frame(tmp_path):
    image = pytest.importorskip("PIL.Image")
    frame = natural(1, 21, 34)[0]
    path = still_png(tmp_path / "a.png", frame / np.float32(255), {"workflow": WORKFLOW, "prompt": "{}"})
    assert read_embedded(path) == {"workflow": WORKFLOW, "prompt": "{}"}
    with image.open(path) as picture:
        assert np.array_equal(np.asarray(picture), frame)
    with pytest.raises(FileExistsError):
        still_png(path, frame, {})


def test_too_many_texts_for_a_webp_are_refused(tmp_path):
    with pytest.raises(T2VError, match="at most"):
        store(tmp_path, "webp", {f"k{i}": "x" for i in range(9)})
    assert not list(tmp_path.iterdir())
