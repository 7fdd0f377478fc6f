"""Checks of T2VSaveVideo and T2VLoadVideo with what other nodes, people and disks give them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from types import SimpleNamespace

from clip_files import clip, fresh, info, library, load, logged, put, raises, save


class Lazy(Mapping):
    """AUDIO as VideoHelperSuite gives it: it reads the sound when it is asked, and raises where there is none."""

    def __getitem__(self, key):
        raise Exception("failed to extract audio: the output file does not contain any stream")

    __iter__ = __len__ = __getitem__


def check_a_clip_whose_sound_cannot_be_read_is_saved_without_it(host):
    import numpy as np
    import torch

    fresh(host)
    wave = torch.zeros(1, 2, 4000)
    broken = [
        Lazy(),
        {"waveform": wave},
        {"sample_rate": 8000},
        {"waveform": None, "sample_rate": 8000},
        {"waveform": wave, "sample_rate": float("nan")},
        {"waveform": wave, "sample_rate": 0},
        {"waveform": wave[..., :0], "sample_rate": 8000},
        {"waveform": wave.expand(3, 2, 4000), "sample_rate": 8000},
        {"waveform": torch.zeros(1, 40, 10), "sample_rate": 8000},
        {"waveform": np.array([["a"]]), "sample_rate": 8000},
        {"waveform": "sound", "sample_rate": 8000},
        "sound",
        [],
    ]
    for name in ("h264-mp4", "ffv1-mkv"):
        for audio in broken:
            with logged(host) as lines:
                (path,), _, (video,) = save(host, clip(3), audio=audio, format=name)
            assert (info(host, path).frame_count, info(host, path).audio) == (3, None), audio
            assert "without sound" in " ".join(lines), (audio, lines)
            assert video.get_components().images.shape[0] == 3


def check_sound_of_numpy_and_of_no_numbers_is_written(host):
    import numpy as np
    import torch

    fresh(host)
    wave = torch.zeros(1, 2, 4000)
    wave[0, 0, 10], wave[0, 1, 20] = float("nan"), float("inf")
    for audio in (
        {"waveform": wave, "sample_rate": 8000},
        {"waveform": wave.numpy(), "sample_rate": 8000},
        {"waveform": wave[0].double(), "sample_rate": np.int64(8000)},
    ):
        (path,), _, _ = save(host, clip(3), audio=audio, format="ffv1-mkv")
        assert info(host, path).audio.channels == 2
        samples = library(host).VideoReader(path).audio().samples
        assert np.isfinite(samples).all()
        assert np.abs(samples).max() <= 1.01


def check_sound_is_read_before_the_first_frame_is_encoded(host):
    fresh(host)
    module, asked = host.module("nodes.host.save_video"), []

    class Asked(Lazy):
        def __getitem__(self, key):
            asked.append("sound")
            raise RuntimeError("no sound")

    def frames():
        for frame in clip(3):
            asked.append("frame")
            yield frame

    settings = module.Settings(12.0, "h264-mp4", 80, "order/x", 0, False, True)
    module.save((3, frames()), settings, Asked(), {})
    assert asked == ["sound", "frame", "frame", "frame"]


def check_folders_that_cannot_be_written_are_a_sentence(host):
    import folder_paths

    fresh(host)
    blocked = host.base / "blocked"
    blocked.write_text("a file in the way")
    for save_output in (True, False):
        kind = "output" if save_output else "temp"
        before = getattr(folder_paths, f"get_{kind}_directory")()
        getattr(folder_paths, f"set_{kind}_directory")(str(blocked / "folder"))
        try:
            said = raises(lambda save_output=save_output: save(host, clip(2), save_output=save_output))
        finally:
            getattr(folder_paths, f"set_{kind}_directory")(before)
        assert said.startswith("T2VError"), said
        assert f"--{kind}-directory" in said, said
    store = host.module("t2v_models.films.store").Store
    for folder in (blocked / "t2v_unfinished" / "x", blocked):
        said = raises(lambda folder=folder: store(folder, {}).begin())
        assert said.startswith("T2VError"), said
        assert "choose another folder" in said
    blocked.unlink()


def check_a_film_whose_folder_cannot_be_made_says_what_to_do(host):
    import folder_paths

    fresh(host)
    model, clip_, _ = host.tiny()
    blocked = os.path.join(folder_paths.get_output_directory(), "t2v_unfinished")
    with open(blocked, "w") as file:
        file.write("a file in the way")
    how = {
        "fps": 8.0,
        "width": 32,
        "height": 32,
        "method": "windows",
        "seed": 1,
        "steps": 2,
        "cfg": 3.0,
        "resume": True,
    }
    window = {"context_length": 4, "context_overlap": 2, "fuse_method": "pyramid", "closed_loop": False}
    said = raises(lambda: host.run("T2VFilm", model=model, clip=clip_, story="a red circle", frames=8, **how, **window))
    os.unlink(blocked)
    assert said.startswith("T2VError"), said
    assert "t2v_unfinished" in said


def check_names_that_are_no_clips_are_refused_in_one_sentence(host):
    fresh(host)
    node = host.node("T2VLoadVideo")
    for name in (
        5,
        True,
        None,
        1.5,
        ["a"],
        "a" * 5000 + ".mp4",
        "a\0.mp4",
        "a\ud800.mp4",
        "../" * 3000,
        "..",
        "[output]",
    ):
        assert "There is no clip" in raises(lambda name=name: load(host, name)), name
        said = node.validate_inputs(video=name, input_types={})
        assert "There is no clip" in said, (name, said)
        assert len(said) < 400
        assert "gone" in node.fingerprint_inputs(video=name) or name is None
    assert node.validate_inputs(video=None, input_types={"video": "COMBO"}) is True
    assert "fps takes FLOAT" in node.validate_inputs(video=None, input_types={"video": "COMBO", "fps": "IMAGE"})


def check_links_that_lead_out_are_listed_only_where_the_host_follows_them(host):
    from unittest import mock

    import folder_paths

    fresh(host)
    put(host, "inside.mp4", images=clip(2))
    inputs, outside = folder_paths.get_input_directory(), host.base / "outside"
    outside.mkdir(exist_ok=True)
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(os.path.join(inputs, "inside.mp4"), outside / name)
    os.symlink(outside, os.path.join(inputs, "linked"))
    os.symlink(outside / "a.mp4", os.path.join(inputs, "linked.mp4"))
    os.symlink(os.path.join(inputs, "inside.mp4"), os.path.join(inputs, "again.mp4"))
    module, plain = host.module("nodes.host.load_video"), folder_paths.get_annotated_filepath
    everything = {"inside.mp4", "again.mp4", "linked.mp4", "linked/a.mp4", "linked/b.mp4"}

    def strict(name, default_dir=None):
        """As hosts since 0.28 do."""
        path = plain(name, default_dir)
        if os.path.commonpath((os.path.realpath(path), os.path.realpath(inputs))) != os.path.realpath(inputs):
            raise ValueError(f"Invalid file path: {name!r}")
        return path

    with mock.patch.object(folder_paths, "get_annotated_filepath", strict):
        assert set(module.clip_names()) == {"inside.mp4", "again.mp4"}
        for name in ("linked/a.mp4", "linked.mp4"):
            said = raises(lambda name=name: load(host, name))
            assert said.startswith("T2VError"), said
            assert "leads out of the input folder" in said
            assert "leads out of the input folder" in host.node("T2VLoadVideo").validate_inputs(video=name)
        for name in ("../../etc/passwd", "/etc/passwd", "linked/c.mp4"):
            assert "There is no clip" in raises(lambda name=name: load(host, name))
        assert len(load(host, "again.mp4")[0]) == 2
    if len(module.clip_names()) > 2:  # this host follows such links
        assert set(module.clip_names()) == everything
        assert len(load(host, "linked/a.mp4")[0]) == 2


def check_a_damaged_clip_is_read_as_far_as_it_goes_where_that_is_asked(host):
    import folder_paths

    fresh(host)
    for name, form in (("a.mkv", "ffv1-mkv"), ("b.mkv", "h264-mkv"), ("c.gif", "gif")):
        if form not in library(host).FORMATS:
            continue
        put(host, name, images=clip(40), format=form)
        path = os.path.join(folder_paths.get_input_directory(), name)
        with open(path, "r+b") as file:
            file.truncate(os.path.getsize(path) * 2 // 3)
        assert raises(lambda name=name: load(host, name)).startswith("T2VError"), name
        images, _, _, count = host.run("T2VLoadVideo", name, 0.0, 0, 1, 0, 0, 0, strict=False)
        assert 5 < count < 40, (name, count)
        assert len(images) == count


def check_sound_counts_when_memory_is_checked(host):
    fresh(host)
    import torch

    wave = torch.zeros(1, 8, 48000)
    put(host, "a.mkv", images=clip(12), format="ffv1-mkv", fps=12.0, audio={"waveform": wave, "sample_rate": 48000})
    module = host.module("nodes.host.memory")
    real = module.psutil.virtual_memory
    pictures = 12 * 12 * 40 * 56
    module.psutil.virtual_memory = lambda: SimpleNamespace(available=int(1.5 * pictures))
    try:
        said = raises(lambda: load(host, "a.mkv"))
    finally:
        module.psutil.virtual_memory = real
    assert "sound (8 channels)" in said, said
    return said


def check_folders_of_pictures_of_any_numbering_are_listed_and_read(host):
    import folder_paths
    from PIL import Image

    fresh(host)
    inputs = folder_paths.get_input_directory()
    names = {
        "core": "ComfyUI_{:05}_.png",
        "jpeg": "frame{}.jpg",
        "webp": "shot-{:03}.webp",
        "tens": "{}0.PNG",
        "gap": "{:04}7 copy.jpeg",
    }
    for folder, form in names.items():
        os.makedirs(os.path.join(inputs, "sub", folder))
        for number in range(1, 12):
            place = os.path.join(inputs, "sub", folder, form.format(number))
            Image.new("RGB", (32, 24), (20 * number, 0, 0)).save(place)
    for folder, name in (("text", "1.txt"), ("hidden", ".00001.png"), ("unnumbered", "a.png")):
        os.makedirs(os.path.join(inputs, folder))
        Image.new("RGB", (8, 8)).save(os.path.join(inputs, folder, name), "PNG")
    listed = [name for name in host.module("nodes.host.load_video").clip_names() if name.endswith("/")]
    assert listed == sorted(f"sub/{name}/" for name in names)
    for folder in names:
        images, audio, _, count = load(host, f"sub/{folder}/")
        assert (count, audio) == (11, None), folder
        reds = images.mean(dim=(1, 2))[:, 0] * 255
        assert all(abs(float(red) - 20 * (i + 1)) < 6 for i, red in enumerate(reds)), (folder, reds)


def check_a_cancel_is_heard_while_frames_are_skipped_and_sound_is_read(host):
    import threading
    import time

    import comfy.model_management as mm

    fresh(host)
    import folder_paths

    folder, ffmpeg = folder_paths.get_input_directory(), host.module("t2v_models.video.ffmpeg.process")
    short, path = os.path.join(folder, "short.mp4"), os.path.join(folder, "long.mp4")
    source = ["-f", "lavfi", "-i", "testsrc=s=1280x720:r=30:d=5", "-f", "lavfi", "-i", "sine=d=5"]
    for command in (
        [*source, "-c:v", "libx264", "-preset", "ultrafast", short],
        ["-stream_loop", "17", "-i", short, "-c", "copy", path],
    ):
        status, _, said = ffmpeg.run(command)
        assert not status, said
    waits = []
    for after in (0.0, 0.2, 0.6):
        timer = threading.Timer(after, mm.interrupt_current_processing, (True,))
        timer.start()
        begin = time.monotonic()
        said = raises(lambda: load(host, "long.mp4", start_frame=2690, width=64, height=64))
        waits.append(time.monotonic() - begin - after)
        timer.join()
        mm.interrupt_current_processing(False)
        assert "Interrupt" in said, said
    assert max(waits) < 1.5, waits
    return [round(wait, 2) for wait in waits]


def check_a_cancel_is_heard_while_the_file_is_ended(host):
    import comfy.model_management as mm
    import psutil
    import torch

    output, module = fresh(host), host.module("nodes.host.save_video")

    def frames():
        yield from clip(8)
        mm.interrupt_current_processing(True)

    sound = {"waveform": torch.zeros(1, 2, 8000), "sample_rate": 8000}
    for name, audio in (("h264-mp4", None), ("h264-mp4", sound), ("vp9-webm", sound), ("gif", None), ("png", None)):
        settings = module.Settings(8.0, name, 80, "cut/x", 0, False, True)
        said = raises(lambda settings=settings, audio=audio: module.save((8, frames()), settings, audio, {}))
        mm.interrupt_current_processing(False)
        assert "Interrupt" in said, (name, said)
        assert not [f for _, _, files in os.walk(output) for f in files], name
    assert not [p for p in psutil.Process().children() if "ffmpeg" in p.name()]


def check_sound_that_a_format_cannot_hold_costs_no_picture(host):
    import torch

    fresh(host)
    for channels, rate in ((7, 48000), (3, 44100), (5, 8000), (8, 192000), (1, 1000), (2, 768000)):
        for name in ("h264-mp4", "vp9-webm", "ffv1-mkv", "prores-mov"):
            audio = {"waveform": torch.zeros(1, channels, rate // 4), "sample_rate": rate}
            with logged(host) as lines:
                (path,), _, _ = save(host, clip(3), audio=audio, format=name)
            found = info(host, path)
            assert found.frame_count == 3
            assert found.audio is not None or "without sound" in " ".join(lines), (name, channels, rate)


def check_what_a_client_sends_beside_the_prompt_may_be_anything(host):
    texts = host.module("nodes.host.save_video").workflow_texts
    for extra in (None, [], "text", 5, {"a b": 1, "": 2}, {"note": "\ud800"}, {"note": float("nan")}):
        for prompt in (None, {}, {"1": {"inputs": {"text": "a \udfff b", "fps": float("inf")}}}):
            found = texts(prompt, extra)
            assert all(text.isascii() and "NaN" not in text and "Infinity" not in text for text in found.values())
            fresh(host)
            module = host.module("nodes.host.save_video")
            module.save((2, clip(2)), module.Settings(8.0, "h264-mp4", 80, "x", 0, False, True), None, found)
