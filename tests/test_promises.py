"""SECURITY.md's promises: each is held by tests that name it by its words, so that page and tests stay together."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import pickle
import re
import socket
import struct
import subprocess
import sys
import textwrap
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file

import t2v_models
from t2v_models.__main__ import main
from t2v_models.builtin_model import BUILT_IN_FOLDER
from t2v_models.checkpoints import inspect, load_state_dict, load_unet, open_checkpoint, read_lora
from t2v_models.checkpoints.convert import convert
from t2v_models.errors import LONGEST_MESSAGE, T2VError
from t2v_models.video import FORMATS, VideoReader, VideoWriter, engines, still_png

from .fuzz.run import Child
from .fuzz.videos import Bait, playlists
from .support.checkpoints import SMALL, diffusers_folder, in_layout

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]

HELD: dict[str, list[str]] = {}
"""Promise -> the tests that hold it."""


def promise(words: str) -> Callable:
    """Mark a test as one that holds this promise of SECURITY.md."""

    def mark(test: Callable) -> Callable:
        HELD.setdefault(words, []).append(test.__name__)
        return test

    return mark


def test_every_promise_of_the_page_has_a_test_and_every_test_its_promise() -> None:
    page = (ROOT / "SECURITY.md").read_text("utf-8")
    section = page.split("## What is promised")[1].split("\n## ")[0]
    assert set(re.findall(r"^- \*\*(.+?)\.?\*\*", section, re.MULTILINE)) == set(HELD)


class Bomb:
    """A pickle that makes a file when it is executed."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple:
        return os.system, (f"echo > '{self.witness}'",)


def crafted(witness: Path) -> dict[str, bytes]:
    """Pickles that run a command where they are executed: alone, among tensors, by classes, by other opcodes."""
    tensors = in_layout("modelscope", SMALL)
    buffers = {name: io.BytesIO() for name in ("zip", "old")}
    torch.save({"bomb": Bomb(witness), **tensors}, buffers["zip"])
    torch.save({"bomb": Bomb(witness), **tensors}, buffers["old"], _use_new_zipfile_serialization=False)
    command = f"echo > {witness}"
    by_instance = f"(S'{command}'\nios\nsystem\n.".encode()
    by_object = f"(cos\nsystem\nS'{command}'\no.".encode()
    by_build = f"c{__name__}\nBomb\n)\x81}}S'witness'\nS'{command}'\nsb.".encode()
    return {
        **{name: buffer.getvalue() for name, buffer in buffers.items()},
        **{f"protocol {n}": pickle.dumps(Bomb(witness), protocol=n) for n in range(6)},
        "instance": by_instance,
        "object": by_object,
        "build": by_build,
    }


@promise("A file runs no code")
@pytest.mark.parametrize("ending", [".pt", ".pth", ".ckpt", ".bin"])
def test_no_crafted_pickle_runs_code(tmp_path: Path, ending: str) -> None:
    witness = tmp_path / "witness"
    for name, data in crafted(witness).items():
        path = tmp_path / f"{name}{ending}"
        path.write_bytes(data)
        readers = (load_unet, open_checkpoint, inspect, load_state_dict, read_lora)
        for read in (*readers, lambda path: convert(path, path.with_suffix(".out"), "diffusers")):
            with contextlib.suppress(T2VError):
                read(path)
        assert not witness.exists(), f"{name} ran its command"


@promise("No path leaves its folder")
@pytest.mark.parametrize(
    "shard",
    ["../secret.safetensors", "sub/../../secret.safetensors", "/secret.safetensors", "..\\secret.safetensors", ".."],
)
def test_an_index_names_no_file_outside_its_folder(tmp_path: Path, shard: str) -> None:
    save_file({"conv_in.weight": torch.zeros(2)}, tmp_path / "secret.safetensors")
    folder = tmp_path / "model"
    folder.mkdir()
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    name = str(tmp_path / "secret.safetensors") if shard.startswith("/") else shard
    index.write_text(json.dumps({"weight_map": {"conv_in.weight": name}}))
    for read in (load_state_dict, load_unet, open_checkpoint):
        with pytest.raises(T2VError):
            read(index)


@promise("No path leaves its folder")
def test_nodes_open_only_files_of_the_hosts_folders() -> None:
    """The check runs in each ComfyUI; this test holds that it is there."""
    checks = "".join(path.read_text("utf-8") for path in (ROOT / "tests" / "comfy" / "checks").glob("*.py"))
    assert "def check_only_files_of_the_hosts_folders_are_loaded" in checks


@promise("No address is called")
@pytest.mark.parametrize("engine", ["ffmpeg", "pyav"])
def test_no_playlist_reaches_a_file_or_an_address(tmp_path: Path, engine: str) -> None:
    engines.use(engine)
    bait = Bait(tmp_path)
    endings = [".mp4", ".m3u8", ".mkv", ".sdp", ".mpd", ".gif"]
    for number, data in enumerate(playlists(bait.canary, bait.port)):
        path = tmp_path / f"list{number}{endings[number % len(endings)]}"
        path.write_bytes(data)
        for strict in (True, False):
            with pytest.raises(T2VError):
                list(VideoReader(path, strict=strict))
    engines.use(None)
    bait.close()
    assert bait.touched == []


@promise("No address is called")
def test_models_with_a_tokenizer_load_without_a_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError(f"an address was called: {arguments}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    convert(BUILT_IN_FOLDER, tmp_path / "model", "diffusers")
    for model in ("built-in", tmp_path / "model"):
        assert t2v_models.load_pipeline(model)("a red circle", frames=2, steps=1).frames.shape[1] == 2


@promise("Only ffmpeg is started")
@pytest.mark.parametrize("engine", ["ffmpeg", "pyav"])
def test_reading_and_writing_start_only_ffmpeg(tmp_path: Path, engine: str) -> None:
    code = """
        import sys
        started = []
        kinds = ("subprocess", "os.system", "os.exec", "os.posix_spawn")
        sys.addaudithook(lambda event, args: started.append((event, args)) if event.startswith(kinds) else None)
        import numpy as np
        from t2v_models.video import FORMATS, VideoReader, VideoWriter, engines
        from t2v_models.video.ffmpeg.process import ffmpeg_exe
        engines.use(sys.argv[2])
        for name in ("h264-mp4", "vp9-webm", "gif"):
            path = sys.argv[1] + "/a" + FORMATS[name].extension
            with VideoWriter(path, 8, format=name) as video:
                video.write(np.zeros((16, 16, 3), np.uint8))
            assert len(list(VideoReader(path))) == 1
        assert bool(started) == (sys.argv[2] == "ffmpeg")
        others = [args[0] for event, args in started if args[0] != ffmpeg_exe() and "ffmpeg" not in str(args[1][0])]
        assert not others, others
        assert all(isinstance(args[1], list) for event, args in started if event == "subprocess.Popen")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(tmp_path), engine], check=True, cwd=ROOT)


@promise("Only ffmpeg is started")
def test_no_code_asks_for_a_shell() -> None:
    for path in [*(ROOT / "t2v_models").rglob("*.py"), *(ROOT / "nodes").rglob("*.py")]:
        keywords = {node.arg for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.keyword)}
        assert "shell" not in keywords, path


def bloated() -> dict[str, bytes]:
    """Small files whose reading could take hours or gigabytes: name -> bytes."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", b"\x80\x02" + b"]" * 200_000_000)
        file.writestr("archive/version", "3\n")
    doubling = b"\x80\x02]q\x00" + b"".join(b"]q%c(h%ch%ce" % (n + 1, n, n) for n in range(60)) + b"."
    return {
        "compressed.pth": archive.getvalue(),
        "marks.pth": b"\x80\x02" + b"(" * 8_000_000,
        "long.pth": b"\x80\x02\x8b" + struct.pack("<i", (1 << 31) - 1),
        "doubling.ckpt": doubling,
        "large.safetensors": struct.pack("<Q", 1 << 60) + b"{}",
        "nested.safetensors": struct.pack("<Q", 9_000_000) + b"[" * 9_000_000,
        "digits.safetensors": struct.pack("<Q", 1_000_010) + b'{"a":' + b"9" * 1_000_004 + b"}",
        "names.safetensors": save({f"a.{n}": torch.zeros(1) for n in range(150_000)}),
    }


@promise("A file takes bounded time and memory")
@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the limit of memory is POSIX's")
@pytest.mark.parametrize("kind", ["checkpoint", "lora"])
def test_small_files_that_would_grow_are_refused_within_2_gb_and_10_seconds(tmp_path: Path, kind: str) -> None:
    from .fuzz import checkpoints, loras

    module = {"checkpoint": checkpoints, "lora": loras}[kind]
    name, data = next(iter(module.originals().items()))
    (tmp_path / name).write_bytes(data)
    child = Child(kind, tmp_path / name)
    results = {}
    for name, data in bloated().items():
        (tmp_path / name).write_bytes(data)
        results[name] = child.read(tmp_path / name)
    child.close()
    assert {name: result for name, result in results.items() if result != "refused"} == {}


def bloated_pictures(folder: Path) -> dict[str, bytes]:
    """Small pictures that unpack to gigabytes, or say that they are of a size that no memory holds."""
    still = still_png(folder / "still.png", np.zeros((8, 8, 3), np.uint8), {"prompt": "{}"}).read_bytes()
    bomb = zlib.compress(bytes(300_000_000))

    def with_chunk(kind: bytes, body: bytes) -> bytes:
        return (
            still[:33]
            + struct.pack(">I", len(body))
            + kind
            + body
            + struct.pack(">I", zlib.crc32(kind + body))
            + still[33:]
        )

    header = b"IHDR" + struct.pack(">II", 1 << 30, 1 << 30) + still[24:29]
    return {
        "ztxt.png": with_chunk(b"zTXt", b"workflow\0\0" + bomb),
        "itxt.png": with_chunk(b"iTXt", b"workflow\0\1\0\0\0" + bomb),
        "many.png": with_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000))) + still,
        "size.png": still[:12] + header + struct.pack(">I", zlib.crc32(header)) + still[33:],
        "size.gif": b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\2\2D\1\0;",
    }


@promise("A file takes bounded time and memory")
@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the limit of memory is POSIX's")
@pytest.mark.parametrize("engine", ["ffmpeg", "pyav"])
def test_small_pictures_that_would_grow_are_handled_within_2_gb_and_10_seconds(tmp_path: Path, engine: str) -> None:
    with VideoWriter(tmp_path / "sample.gif", 8, format="gif") as video:
        video.write(np.zeros((16, 16, 3), np.uint8))
    child = Child(engine, tmp_path / "sample.gif")
    results = {}
    for name, data in bloated_pictures(tmp_path).items():
        (tmp_path / name).write_bytes(data)
        results[name] = child.read(tmp_path / name)
    child.close()
    assert {name: result for name, result in results.items() if result not in ("refused", "loaded")} == {}


@promise("A file may change after it is read")
@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".old.pth"])
@pytest.mark.parametrize("change", ["os.truncate(path, 100)", "open(path, 'r+b').write(bytes(os.path.getsize(path)))"])
def test_weights_survive_a_change_of_their_file(tmp_path: Path, ending: str, change: str) -> None:
    path = tmp_path / f"model{ending}"
    tensors = in_layout("modelscope")
    if ending == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=ending == ".pth")
    code = f"""
        import os, sys
        from t2v_models.checkpoints import load_unet
        path = sys.argv[1]
        unet = load_unet(path)
        before = [float(parameter.abs().sum()) for parameter in unet.parameters()]
        {change}
        assert before == [float(parameter.abs().sum()) for parameter in unet.parameters()]
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(path)], check=True, cwd=ROOT)


@promise("A message has at most 2,000 characters")
def test_no_message_is_longer_whatever_a_file_holds(tmp_path: Path) -> None:
    long = "x" * 1_000_000
    save_file({f"{long}.{n}": torch.zeros(n + 1) for n in range(3)}, tmp_path / "names.safetensors")
    torch.save({long: torch.zeros(1), f"{long}.lora_A.weight": torch.zeros(2, 2)}, tmp_path / "names.pth")
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\x18ftypisom" + long.encode())
    messages = [str(T2VError(long))]
    for path in sorted(tmp_path.iterdir()):
        for read in (load_unet, read_lora, open_checkpoint, lambda path: list(VideoReader(path))):
            with pytest.raises(T2VError) as caught:
                read(path)
            messages.append(str(caught.value))
    assert max(map(len, messages)) <= LONGEST_MESSAGE


@promise("A damaged file gives one sentence")
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_files_that_are_cut_off_are_refused_in_one_line(
    tmp_path: Path, share: float, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file(in_layout("modelscope"), tmp_path / "model.safetensors")
    torch.save(in_layout("modelscope"), tmp_path / "model.pth")
    with VideoWriter(tmp_path / "clip.mp4", 8, format="h264-mp4") as video:
        for _ in range(4):
            video.write(np.zeros((16, 16, 3), np.uint8))
    for path in sorted(tmp_path.iterdir()):
        data = path.read_bytes()
        path.write_bytes(data[: int(share * len(data))])
        if path.suffix == ".mp4":
            with pytest.raises(T2VError, match=r"^[^\n]*$"):
                list(VideoReader(path))
        else:
            assert main(["inspect", str(path)]) in (0, 2)  # the header may be whole
            assert capsys.readouterr().err.count("\n") <= 1
            with pytest.raises(T2VError, match=r"^[^\n]*$"):
                load_unet(path)


class Cancelled(Exception):
    """What a caller raises in the middle of the work."""


@promise("A written file is whole or not there")
@pytest.mark.parametrize("name", ["h264-mp4", "vp9-webm", "ffv1-16bit-mkv", "gif", "webp", "png"])
def test_a_video_that_is_not_finished_leaves_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(Cancelled), VideoWriter(tmp_path / f"clip{FORMATS[name].extension}", 8, format=name) as video:  # noqa: PT012
        video.write(np.zeros((16, 16, 3), np.uint8))
        raise Cancelled
    assert list(tmp_path.iterdir()) == []


@promise("A written file is whole or not there")
@pytest.mark.parametrize("target", ["model.safetensors", "model.ckpt", "folder"])
def test_a_conversion_that_is_not_finished_leaves_nothing(tmp_path: Path, target: str) -> None:
    source = diffusers_folder(tmp_path / "source")

    def cancel(done: int, total: int) -> None:
        raise Cancelled

    layout = "diffusers" if target == "folder" else "videocrafter"
    with pytest.raises(Cancelled):
        convert(source, tmp_path / "out" / target, layout, progress=cancel)
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


@promise("A written file is whole or not there")
@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_a_killed_process_leaves_no_file_under_the_name(tmp_path: Path) -> None:
    code = """
        import os, signal, sys
        import numpy as np
        from t2v_models.video import VideoWriter
        video = VideoWriter(sys.argv[1] + "/clip.mp4", 8)
        video.write(np.zeros((16, 16, 3), np.uint8))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], check=False, cwd=ROOT)
    assert done.returncode == -9
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".t2v-unfinished")] == []


@promise("An existing file is not overwritten")
def test_writers_leave_an_older_file_as_it_is(tmp_path: Path) -> None:
    old = tmp_path / "clip.mp4"
    old.write_bytes(b"old")
    with pytest.raises(FileExistsError), VideoWriter(old, 8) as video:
        video.write(np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(FileExistsError):
        still_png(old, np.zeros((8, 8, 3), np.uint8), {})
    model = diffusers_folder(tmp_path / "source")
    with pytest.raises((FileExistsError, T2VError)):
        convert(model, old, "videocrafter")
    assert old.read_bytes() == b"old"


@promise("The pack brings no code from elsewhere")
def test_no_file_of_the_pack_fetches_or_evaluates_code() -> None:
    """tests/test_shipped.py looks for the calls themselves; these words would lead around it."""
    for path in [*(ROOT / "t2v_models").rglob("*.py"), *(ROOT / "nodes").rglob("*.py"), ROOT / "__init__.py"]:
        text = path.read_text("utf-8")
        words = ("trust_remote_code", "ensurepip", "torch.hub", "importlib.util.spec_from_file_location")
        assert [word for word in words if word in text] == [], path
    assert [path for path in (ROOT / "web").rglob("*") if path.suffix in (".js", ".mjs", ".ts", ".html")] == []
