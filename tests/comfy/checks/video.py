"""Checks of T2VSaveVideo and T2VLoadVideo. Run inside a ComfyUI by in_host.py."""

from __future__ import annotations

import json
import os
from fractions import Fraction
from types import SimpleNamespace

from clip_files import PROMPT, WORKFLOW, clip, fresh, info, library, load, put, raises, save


def check_every_format_holds_the_workflow_or_has_a_png_beside_it(host):
    output, read = fresh(host), library(host).read_embedded
    images, audio = clip(), {"waveform": __import__("torch").zeros(1, 2, 4000), "sample_rate": 8000}
    formats = library(host).FORMATS
    menu = host.node("T2VSaveVideo").INPUT_TYPES()["required"]["format"]
    assert set(menu[0] if isinstance(menu[0], list) else menu[1]["options"]) <= set(formats)
    for name, form in formats.items():
        files, ui, videos = save(host, images, audio=audio, format=name, filename_prefix=f"all/{name}")
        assert len(files) == len(videos) == 1
        found = info(host, files[0])
        assert (found.width, found.height, found.frame_count, found.fps) == (56, 40, 6, 12), name
        texts = found.metadata
        beside = os.path.splitext(files[0])[0] + ".png"
        if not form.drop:
            texts = read(__import__("pathlib").Path(beside))
        assert json.loads(texts["workflow"]) == WORKFLOW, name
        assert json.loads(texts["prompt"]) == PROMPT, name
        assert os.path.exists(beside) == (not form.drop or form.muxer == "image2"), name
        assert (found.audio is not None) == bool(form.audio), name
        shown = ui["images"][0]["filename"]
        assert shown.endswith((".mp4", ".webm", ".webp")), shown
    left = [name for _, folders, _ in os.walk(output) for name in folders if name.startswith(".")]
    assert not left


def check_counter_patterns_and_subfolders_are_the_hosts(host):
    fresh(host)
    names = [save(host, clip(1), filename_prefix="sub/%width%x%height%")[0][0] for _ in range(3)]
    assert [os.path.relpath(n, os.path.dirname(os.path.dirname(names[0]))) for n in names] == [
        f"sub/56x40_{n:05}_.mp4" for n in (1, 2, 3)
    ]
    folders = [save(host, clip(1), filename_prefix="p", format="png")[0][0] for _ in range(2)]
    assert [os.path.basename(os.path.dirname(f)) for f in folders] == ["p_00001_", "p_00002_"]
    temp, ui, _ = save(host, clip(1), save_output=False)
    assert ui["images"][0]["type"] == "temp"
    assert "temp" in temp[0]


def check_names_that_leave_the_output_folder_are_refused(host):
    output = fresh(host)
    above = sorted(os.listdir(os.path.dirname(output)))
    said = [
        raises(lambda name=name: save(host, clip(1), filename_prefix=name))
        for name in ("../x", "/tmp/x", "a/../../x", "a/b/../../../x")
    ]
    assert all("stays inside" in text for text in said), said
    assert sorted(os.listdir(os.path.dirname(output))) == above
    long = raises(lambda: save(host, clip(1), filename_prefix="x" * 300))
    assert "too long" in long or "255" in long, long
    return said[0]


def check_disable_metadata_is_honoured(host):
    from comfy.cli_args import args

    fresh(host)
    args.disable_metadata = True
    try:
        files = [save(host, clip(2), format=name)[0][0] for name in ("h264-mp4", "webp", "gif", "png")]
    finally:
        args.disable_metadata = False
    for path in files:
        assert info(host, path).metadata == {}, path
    assert not os.path.exists(os.path.splitext(files[2])[0] + ".png")


def check_pingpong_and_loops_have_their_frames(host):
    fresh(host)

    def blues(**widgets):
        files, _, _ = save(host, clip(4), format="ffv1-mkv", **widgets)
        return [round(float(f[0, 0, 2]) / 85) for f in library(host).VideoReader(files[0])]

    assert blues() == [0, 1, 2, 3]
    assert blues(pingpong=True) == [0, 1, 2, 3, 2, 1]
    assert blues(loop_count=2) == [0, 1, 2, 3] * 3
    assert blues(pingpong=True, loop_count=1) == [0, 1, 2, 3, 2, 1] * 2
    files, _, _ = save(host, clip(4), format="webp", loop_count=2)
    assert info(host, files[0]).frame_count == 4


def check_half_precision_frames_come_back_as_they_went(host):
    import torch

    frames = [torch.full((2, 2, 3), value, dtype=torch.float16) for value in (0.25, 1.0, 0.5)]
    shown = list(host.module("nodes.host.save_video").played(3, iter(frames), True, 2))
    for frame, value in zip(shown, [0.25, 1.0, 0.5, 1.0] * 2, strict=True):
        assert (frame.float() - value).abs().max() < 1e-4, value


def check_a_latent_is_decoded_as_it_is_written(host):
    import torch

    fresh(host)
    vae = host.tiny()[2]
    latent = {"samples": torch.randn(2, 4, 12, 5, 7, generator=torch.Generator().manual_seed(1))}
    decoding = host.module("nodes.host.decoding")
    whole = decoding.decode(vae, latent).reshape(2, 12, 40, 56, 3)
    for widgets in ({}, {"pingpong": True, "loop_count": 1}):
        files, ui, videos = save(host, latent=latent, vae=vae, format="ffv1-16bit-mkv", **widgets)
        assert len(files) == len(videos) == len(ui["images"]) == 2
        order = [*range(12), *(range(10, 0, -1) if "pingpong" in widgets else ())] * (1 + widgets.get("loop_count", 0))
        for path, images in zip(files, whole, strict=True):
            frames = [torch.from_numpy(f.astype("int32")) for f in library(host).VideoReader(path, depth=16)]
            assert len(frames) == len(order)
            error = torch.stack(frames) / 65535 - images[order].clamp(0, 1)
            assert error.abs().max() < 2e-4, (widgets, float(error.abs().max()))
    held, chunked_vae = [], host.module("nodes.host.models.chunked_vae")
    stream = host.module("nodes.host.save_video").decoded(decoding.checked_vae(vae), {"samples": latent["samples"][:1]})
    original = chunked_vae.decode
    chunked_vae.decode = lambda vae, samples: held.append(len(samples)) or original(vae, samples)
    try:
        next(stream)
        assert 0 < sum(held) <= 8, "more than a chunk was decoded for the first frame"
    finally:
        chunked_vae.decode = original
    frames_as_batch = {"samples": latent["samples"][0].movedim(1, 0)}
    files, _, _ = save(host, latent=frames_as_batch, vae=vae)
    assert info(host, files[0]).frame_count == 12


def check_wrong_wiring_is_a_sentence(host):
    fresh(host)
    latent = {"samples": __import__("torch").zeros(1, 4, 2, 5, 5)}
    assert "Wire either" in raises(lambda: save(host))
    assert "Wire either" in raises(lambda: save(host, clip(1), latent=latent))
    assert "needs its vae" in raises(lambda: save(host, latent=latent))


def check_the_video_output_suits_core_nodes(host):
    fresh(host)
    for name in ("h264-mp4", "vp9-webm", "gif", "webp", "png", "prores-mov", "ffv1-mkv"):
        _, _, (video,) = save(host, clip(6), format=name)
        components = video.get_components()
        assert components.images.shape == (6, 40, 56, 3), name
        assert abs(float(components.frame_rate) - 12) < 0.2, (name, components.frame_rate)
        assert video.get_dimensions() == (56, 40)
    cls = host.node("SaveVideo").PREPARE_CLASS_CLONE(None)
    cls.hidden = SimpleNamespace(prompt=None, extra_pnginfo=None)
    assert cls.execute(video, "again/x", "auto", "auto") is not None


def check_frames_that_were_decoded_while_writing_are_read_back_only_where_they_are_asked_for(host):
    from unittest import mock

    fresh(host)
    module = host.module("nodes.host.save_video")
    for name in ("png", "gif"):
        settings = module.Settings(12.0, name, 80, "back/x", 0, False, True)
        with mock.patch.object(module, "load", side_effect=AssertionError("read back")):
            saved = module.save((6, iter(clip(6))), settings, None, {})
        images = saved.video.get_components().images
        assert images.shape == (6, 40, 56, 3), name
        assert (images - clip(6)).abs().max() < (1 / 255 if name == "png" else 0.5), name
        assert saved.video.get_dimensions() == (56, 40)


def check_the_png_with_the_workflow_is_named_after_its_frames(host):
    output = fresh(host)
    module = host.module("nodes.host.save_video")
    settings = module.Settings(12.0, "png", 80, "named/shot.v2", 0, False, True)
    large = {"workflow": "x" * (module.EDITOR_READS + 1)}
    for _ in range(2):
        module.save((2, clip(2)), settings, None, large)
    found = sorted(os.listdir(os.path.join(output, "named")))
    assert found == [f"shot.v2_0000{n}_{end}" for n in (1, 2) for end in ("", ".png")], found


def check_a_clip_at_a_rate_that_ends_in_half_a_frame_loads_whole(host):
    fresh(host)
    (path,), _, _ = save(host, clip(9), fps=8.0)
    module = host.module("nodes.host.load_video")
    assert len(module.load(module.VideoReader(path, fps=4))) == 5
    said = raises(lambda: module.load(module.VideoReader(path, fps=0.1)))
    assert "9 frames, which last less than half a frame" in said


def check_an_interrupt_leaves_no_file_and_no_process(host):
    import comfy.model_management as mm
    import psutil

    output = fresh(host)

    def images():
        for n, frame in enumerate(clip(50)):
            if n == 20:
                mm.interrupt_current_processing(True)
            yield frame

    module = host.module("nodes.host.save_video")
    for name in ("h264-mp4", "png", "gif"):
        settings = module.Settings(12.0, name, 80, "cut/x", 0, False, True)
        said = raises(lambda settings=settings: module.save((50, images()), settings, None, {}))
        mm.interrupt_current_processing(False)
        assert "Interrupt" in said, said
    assert not [f for _, _, files in os.walk(output) for f in files]
    assert not [p for p in psutil.Process().children() if "ffmpeg" in p.name()]


def check_every_format_is_loaded_back(host):
    import torch

    fresh(host)
    images = clip(8)
    noise = torch.randn(1, 2, 8000, generator=torch.Generator().manual_seed(0)) * 0.1
    for name, form in library(host).FORMATS.items():
        target = f"{name}{form.extension}"
        put(host, target, images=images, audio={"waveform": noise, "sample_rate": 8000}, format=name)
        loaded, audio, fps, count = load(host, target + ("" if form.extension else "/"))
        assert loaded.shape == images.shape, name
        assert loaded.dtype == torch.float32
        error = (loaded - images).abs().mean()
        assert error < (0.04 if name == "gif" else 0.01), (name, float(error))
        assert (fps, count) == (12.0, 8)
        if form.audio:
            assert abs(audio["waveform"].shape[-1] / audio["sample_rate"] - 8 / 12) < 0.001
        else:
            assert audio is None
    options = host.node("T2VLoadVideo").INPUT_TYPES()["required"]["video"]
    names = options[0] if isinstance(options[0], list) else options[1]["options"]
    assert {"h264-mp4.mp4", "gif.gif", "png/", "webp.webp"} <= set(names), names
    upload = options[1].get("video_upload")
    assert upload, options


def check_a_clip_is_trimmed_and_scaled(host):
    fresh(host)
    put(host, "a.mkv", images=clip(12), format="ffv1-mkv")
    images, _, fps, count = load(host, "a.mkv", start_frame=2, every_nth=3, frame_cap=3, height=20)
    assert (tuple(images.shape), fps, count) == ((3, 20, 28, 3), 4.0, 3)
    assert [round(float(image[0, 0, 2]) * 11) for image in images] == [2, 5, 8]
    images, _, fps, count = load(host, "a.mkv", fps=29.97)
    assert abs(fps - 29.97) < 0.001
    assert abs(count - 30) <= 1
    assert "begin earlier" in raises(lambda: load(host, "a.mkv", start_frame=12))


def check_a_clip_larger_than_memory_is_refused_with_a_number(host):
    fresh(host)
    put(host, "a.mkv", images=clip(12), format="ffv1-mkv")
    module, vae = host.module("nodes.host.memory"), host.tiny()[2]
    (latent,) = host.run("T2VEmptyLatent", 64, 64, 6, 1)
    real, reader = module.psutil.virtual_memory, library(host).VideoReader
    module.psutil.virtual_memory = lambda: SimpleNamespace(available=12 * 40 * 56 * 6)
    iterate = reader.__iter__
    reader.__iter__ = lambda self: (_ for _ in ()).throw(AssertionError("a frame was read"))
    try:
        said = raises(lambda: load(host, "a.mkv"))
        decoding = raises(lambda: host.run("T2VVAEDecodeFrames", latent, vae))
    finally:
        module.psutil.virtual_memory, reader.__iter__ = real, iterate
    assert "T2VSaveVideo" in decoding, decoding
    assert "frame_cap to 5 or less" in said, said
    assert "every_nth to 3" in said, said
    return said


def check_only_files_of_the_hosts_folders_are_loaded(host):
    fresh(host)
    for name in ("../../etc/passwd", "/etc/passwd", "nothing.mp4", ""):
        assert "There is no clip" in raises(lambda name=name: load(host, name)), name
        said = host.node("T2VLoadVideo").validate_inputs(video=name)
        assert said is not True, name
    put(host, "a.mp4", images=clip(2))
    node = host.node("T2VLoadVideo")
    assert node.validate_inputs(video="a.mp4") is True
    before = node.fingerprint_inputs(video="a.mp4", fps=0)
    put(host, "a.mp4", images=clip(3))
    assert node.fingerprint_inputs(video="a.mp4", fps=0) != before
    assert Fraction(load(host, "a.mp4")[2]) == 12


def check_dates_in_names_are_written_as_the_editor_does_for_core(host):
    import datetime

    fresh(host)
    ((path,), _, _) = save(host, clip(2), filename_prefix="%date:yyyy-MM-dd%/at_%date:yy M%_end")
    today = datetime.date.today()
    assert os.path.basename(os.path.dirname(path)) == today.isoformat()
    assert os.path.basename(path).startswith(f"at_{today.year % 100:02} {today.month}_end_")


def check_a_clip_whose_preview_fails_is_saved_all_the_same(host):
    import folder_paths

    fresh(host)
    before = folder_paths.get_temp_directory()
    folder_paths.set_temp_directory(str(host.base / "no" / "folder"))
    (host.base / "no").write_text("a file, where the preview's folder would be")
    try:
        (files, ui, _) = save(host, clip(3), format="ffv1-mkv")
    finally:
        folder_paths.set_temp_directory(before)
        (host.base / "no").unlink()
    assert info(host, files[0]).frame_count == 3
    assert ui["images"][0]["type"] == "output"


def check_frames_that_are_drawn_anew_are_noticed(host):
    fresh(host)
    import folder_paths

    folder = os.path.join(folder_paths.get_input_directory(), "frames")
    with library(host).VideoWriter(folder, 12) as video:
        for frame in clip(3):
            video.write(frame)
    cls = host.node("T2VLoadVideo")
    first = cls.fingerprint_inputs("frames/")
    assert cls.fingerprint_inputs("frames/") == first
    path = os.path.join(folder, "00001.png")
    with open(path, "ab") as file:
        file.write(b"x")
    assert cls.fingerprint_inputs("frames/") != first
