"""Clips saved and loaded by the nodes, for the checks: in_host.py imports this before the host has its place on the path."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from types import SimpleNamespace

WORKFLOW = {"nodes": [{"id": 1}], "extra": {"note": 'br{ace "quoted" 漢字 😀\n'}}


PROMPT = {"1": {"class_type": "T2VSaveVideo", "inputs": {"filename_prefix": "}{"}}}


def clip(frames=6, height=40, width=56):
    import torch

    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack([torch.stack([y, x, torch.full_like(x, t / max(1, frames - 1))], dim=-1) for t in range(frames)])


def save(host, images=None, latent=None, vae=None, audio=None, metadata=True, **widgets):
    """(files that were stored, what the editor receives, VIDEO list)."""
    options = {
        "fps": 12.0, "format": "h264-mp4", "quality": 80, "filename_prefix": "t/clip", "loop_count": 0,
        "pingpong": False, "save_output": True, **widgets,
    }  # fmt: skip
    cls = host.node("T2VSaveVideo").PREPARE_CLASS_CLONE(None)
    extra = {"workflow": WORKFLOW} if metadata else None
    cls.hidden = SimpleNamespace(prompt=PROMPT if metadata else None, extra_pnginfo=extra)
    output = cls.execute(**options, images=images, latent=latent, vae=vae, audio=audio)
    import folder_paths

    roots = {"output": folder_paths.get_output_directory(), "temp": folder_paths.get_temp_directory()}
    files = [os.path.join(roots[f["type"]], f["subfolder"], f["filename"]) for f in output.ui["t2v_files"]]
    for shown in output.ui["images"]:
        assert os.path.isfile(os.path.join(roots[shown["type"]], shown["subfolder"], shown["filename"]))
    return files, output.ui, output.args[0]


def fresh(host):
    import folder_paths

    for root in (folder_paths.get_output_directory(), folder_paths.get_input_directory()):
        shutil.rmtree(root, ignore_errors=True)
        os.makedirs(root)
    return folder_paths.get_output_directory()


def library(host):
    return host.module("t2v_models.video")


def info(host, path):
    folder = os.path.dirname(path) if path.endswith(".png") else path
    return library(host).VideoReader(folder).info


@contextlib.contextmanager
def logged(host):
    """The lines that the pack logs meanwhile."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger(host.module("nodes.host.save_video").__name__)
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)


def raises(call):
    try:
        call()
    except BaseException as error:  # newer hosts' interrupt is no Exception
        return f"{type(error).__name__}: {error}"
    raise AssertionError("nothing was raised")


def load(host, name, fps=0.0, start_frame=0, every_nth=1, frame_cap=0, width=0, height=0):
    return host.run("T2VLoadVideo", name, fps, start_frame, every_nth, frame_cap, width, height)


def put(host, target, **options):
    """Save a clip and move it to the input folder."""
    import folder_paths

    files, _, _ = save(host, metadata=False, **options)
    source = os.path.dirname(files[0]) if files[0].endswith(".png") else files[0]
    shutil.move(source, os.path.join(folder_paths.get_input_directory(), target))
