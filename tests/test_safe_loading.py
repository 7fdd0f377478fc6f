"""No code in a file is executed, and a file that is no model gives one clear sentence."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from t2v_models.__main__ import main
from t2v_models.checkpoints import load_state_dict, load_unet, open_checkpoint, read_lora
from t2v_models.errors import T2VError

from .fuzz import checkpoints as fuzz
from .support.checkpoints import all_in_one, in_layout, unet_weights


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_does_not_run(tmp_path: Path, zipped: bool) -> None:
    witness, path = tmp_path / "witness", tmp_path / "model.pth"
    torch.save({"bomb": Bomb(witness), **in_layout("modelscope")}, path, _use_new_zipfile_serialization=zipped)
    unet = load_unet(path)
    assert torch.equal(unet.out[2].weight, unet_weights()["out.2.weight"])
    path.write_bytes(pickle.dumps(Bomb(witness)))
    for read in (load_unet, open_checkpoint, load_state_dict, read_lora):
        with pytest.raises(T2VError, match=r"model\.pth"):
            read(path)
    assert not witness.exists()
    torch.load(io.BytesIO(_saved(Bomb(witness))), weights_only=False)
    assert witness.exists(), "the pickle would have run code, had it been executed"


def _saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_a_checkpoint_with_classes_of_its_trainer_loads(tmp_path: Path) -> None:
    """Lightning's checkpoints hold numpy scalars, enums, namespaces and callbacks beside the weights."""
    import argparse
    import collections
    import enum

    import numpy as np

    Colour = enum.Enum("Colour", "RED", module=__name__)
    globals()["Colour"] = Colour
    value = {
        "state_dict": collections.OrderedDict(all_in_one()),
        "hyper_parameters": argparse.Namespace(lr=np.float64(1e-4), shape=np.zeros(3), colour=Colour.RED),
        "callbacks": {Path: {"best": np.array(0.5)}, "x": collections.defaultdict(list, a=[1])},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1.0}]}],
        "rng": {1, 2, frozenset({3})},
        "bytes": [b"abc", bytearray(b"abc"), complex(1, 2), range(3), slice(1)],
    }
    torch.save(value, tmp_path / "last.ckpt")
    assert set(open_checkpoint(tmp_path / "last.ckpt").info.parts) == {"unet", "vae", "text_encoder"}


NO_MODEL = {
    b"": "is empty",
    b"<!DOCTYPE html><html><body>Sign in</body></html>": "web page",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n": "git lfs pull",
    b'{"message": "rate limited"}': "JSON",
    b"GGUF" + bytes(64): "GGUF",
    b"PK\x05\x06" + bytes(18): "zip archive",
    bytes(5000): "neither safetensors nor a PyTorch pickle",
    pickle.dumps({"a": 1}): "not one that PyTorch wrote",
}


@pytest.mark.parametrize("content", NO_MODEL, ids=list(NO_MODEL.values()))
@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
def test_an_error_says_what_a_file_is_that_is_no_model(tmp_path: Path, content: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(T2VError) as caught:
        load_unet(path)
    message = str(caught.value)
    assert str(path) in message
    assert NO_MODEL[content] in message or name.endswith(".safetensors")
    assert "\n" not in message


def test_a_missing_file_and_an_empty_folder_have_errors_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(T2VError, match="does not exist"):
        load_unet(tmp_path / "nowhere.pth")
    with pytest.raises(T2VError, match="holds no weights"):
        load_unet(tmp_path)
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(T2VError, match="without weights"):
        load_unet(tmp_path)


def test_a_truncated_file_is_refused_with_its_name(tmp_path: Path) -> None:
    save_file(in_layout("modelscope"), tmp_path / "model.safetensors")
    torch.save(in_layout("modelscope"), tmp_path / "model.pth")
    for name in ("model.safetensors", "model.pth"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(T2VError, match=name):
            load_unet(path)


def test_a_shard_outside_the_folder_is_refused(tmp_path: Path) -> None:
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text('{"weight_map": {"conv_in.weight": "../secret.safetensors"}}')
    with pytest.raises(T2VError, match="outside its folder"):
        load_unet(index)
    index.write_text('{"weight_map": {"conv_in.weight": "missing-00001.safetensors"}}')
    with pytest.raises(T2VError, match="missing-00001"):
        load_unet(tmp_path)


def test_a_folder_with_two_networks_is_refused(tmp_path: Path) -> None:
    save_file(in_layout("modelscope"), tmp_path / "a.safetensors")
    save_file(in_layout("videocrafter"), tmp_path / "b.safetensors")
    with pytest.raises(T2VError, match=r"a\.safetensors and b\.safetensors"):
        load_unet(tmp_path)


def test_a_model_beside_a_damaged_file_loads(tmp_path: Path) -> None:
    save_file(in_layout("modelscope"), tmp_path / "a.safetensors")
    (tmp_path / "b.pth").write_bytes(b"<html>")
    assert load_unet(tmp_path).config.in_channels == 4


def test_the_command_line_gives_one_line_and_status_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.pth").write_bytes(b"<html>")
    assert main(["inspect", str(tmp_path / "model.pth")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.strip().splitlines()) == 1


def _mutated(tmp_path: Path, seeds: range) -> None:
    files = fuzz.originals()
    witness = tmp_path / "witness"
    wrong = []
    for seed in seeds:
        mutation, name, data = fuzz.mutate(seed, files, str(witness))
        path = tmp_path / f"{seed}-{name}"
        path.write_bytes(data)
        result = fuzz.outcome(path, witness)
        if result not in ("loaded", "refused"):
            wrong.append(f"{seed} {mutation} of {name}: {result}")
        path.unlink()
    assert not wrong


@pytest.mark.slow
def test_mutated_files_are_refused_or_load_correctly(tmp_path: Path) -> None:
    _mutated(tmp_path, range(20_000, 20_030))


@pytest.mark.slow
def test_many_mutated_files_are_refused_or_load_correctly(tmp_path: Path) -> None:
    _mutated(tmp_path, range(30_000, 30_330))


MEASURE = """
import re, sys, time
from t2v_models.checkpoints import load_unet
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
load_unet(sys.argv[2])  # imports what it needs
def touch():
    unet = load_unet(sys.argv[1])
    return float(sum(p.view(-1)[::1024].sum() + p.view(-1)[-1] for p in unet.parameters()))
before, start = peak(), time.perf_counter()
touch()
loaded, first = peak() - before, time.perf_counter() - start
def plain():
    start = time.perf_counter()
    buffer = bytearray(1 << 24)
    with open(sys.argv[1], "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - start
def timed():
    start = time.perf_counter()
    touch()
    return time.perf_counter() - start
pairs = [(timed(), plain()) for _ in range(5)]
print(loaded, min(t for t, _ in pairs), min(p for _, p in pairs))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize("form", ["safetensors", "zip"])
def test_loading_takes_the_memory_of_the_file_once(tmp_path: Path, form: str) -> None:
    """A tenth of the full size: 140 M parameters, 560 MB."""
    from t2v_models.unet import UNet3D, UNetConfig

    config = UNetConfig(channels=(96, 192, 384, 384), head_dim=32, context_dim=512)
    tensors = {n: torch.zeros(t.shape) for n, t in UNet3D(config, device="meta").state_dict().items()}
    path, small = tmp_path / "model.safetensors", tmp_path / "small.safetensors"
    save_file(tensors, path) if form == "safetensors" else torch.save(tensors, path)
    save_file(in_layout("native"), small)
    del tensors
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path), str(small)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    memory, load, read = map(float, result.stdout.split())
    size = path.stat().st_size
    print(
        f"{form}: {size / 1e6:.0f} MB, memory {memory / size:.3f} of it, touched in {load:.2f} s, read in {read:.2f} s"
    )
    assert memory <= 1.1 * size
    assert load <= 10 * read + 1, "a second copy, or an initialisation, would take far longer"
