"""The ffmpeg program in use: which one, what it can write, and what is said of one that does not run."""

from __future__ import annotations

import logging
import os

import pytest

from t2v_models.errors import T2VError
from t2v_models.video import VideoWriter, available_formats
from t2v_models.video.engines import engine
from t2v_models.video.ffmpeg import process as ffmpeg_module

from .support.engines import every_engine, program_only  # noqa: F401
from .support.video_clips import natural

pytest.importorskip("imageio_ffmpeg")


def test_a_format_that_ffmpeg_cannot_write_is_left_out_and_logged(monkeypatch, caplog, tmp_path):
    everything = engine().abilities("encoders")
    monkeypatch.setattr(type(engine()), "abilities", lambda self, kind: everything - {"libx265", "libsvtav1"})
    with caplog.at_level(logging.WARNING):
        names = available_formats()
    assert not any(name.startswith("h265") for name in names)
    assert ("av1-webm" in names) == ("libaom-av1" in everything)  # the second encoder is used
    assert "h265-mp4" in caplog.text
    with pytest.raises(T2VError, match="libx265"):
        VideoWriter(tmp_path / "a.mp4", 8, format="h265-mp4")


@pytest.mark.usefixtures("program_only")
def test_another_ffmpeg_is_used_where_the_variable_names_one(monkeypatch, tmp_path):
    real = ffmpeg_module.ffmpeg_exe()
    script = tmp_path / "my ffmpeg"
    script.write_text(f'#!/bin/sh\ntouch "{tmp_path}/used"\nexec "{real}" "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(script))
    with VideoWriter(tmp_path / "a.mkv", 24) as video:
        video.write(natural(1, 16, 16)[0])
    assert (tmp_path / "used").exists()
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "nothing"))
    with pytest.raises(T2VError, match="IMAGEIO_FFMPEG_EXE"):
        VideoWriter(tmp_path / "b.mkv", 8)


BROKEN = {
    "a library is missing": ("echo libx264.so.164: cannot open >&2; exit 127", "does not run .*libx264.so.164"),
    "it crashes": ("kill -SEGV $$", "does not run .*status -11"),
    "it is another program": ("echo hello", "is no ffmpeg"),
    "it never answers": ("exec sleep 60", "does not answer -version within 1 seconds"),
}


@pytest.mark.usefixtures("program_only")
@pytest.mark.skipif(os.name == "nt", reason="a shell script stands for ffmpeg")
@pytest.mark.parametrize("fault", BROKEN)
def test_an_ffmpeg_that_does_not_run_is_named_with_the_reason(monkeypatch, tmp_path, fault):
    script, sentence = BROKEN[fault]
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    monkeypatch.setattr(ffmpeg_module, "_ANSWERS", 1 if "sleep" in script else 30)
    with pytest.raises(T2VError, match=sentence):
        VideoWriter(tmp_path / "a.mkv", 8)
