"""Files that were made to do harm are refused, or read, within seconds, in little memory, and in one short sentence."""

from __future__ import annotations

import json
import struct
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from t2v_models.checkpoints import open_checkpoint
from t2v_models.checkpoints.files import read_file
from t2v_models.errors import T2VError
from t2v_models.foreign import LIMITS

from .support.checkpoints import all_in_one, in_layout
from .support.forged import TENSOR, child, name, outcomes, text, torch_zip
from .test_lora import kohya, pairs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="the child's memory and time are bound by Unix's limits"),
]

SIZE = name("torch", "Size")
MANY = b"(" + b"N" * 100_000
PICKLES = {
    "calls one list many times": name("collections", "OrderedDict") + b"q\x00(" + text("a") + b"N\x86" * 1 + b"lq\x01("
    + (b"h\x00(" + b"h\x01" * 10 + b"tR") * 200_000 + b"t",
    "makes sizes of one long tuple": SIZE + b"q\x00" + MANY + b"tq\x01(" + b"h\x00h\x01\x85R" * 300_000 + b"t",
    "calls with many arguments": SIZE + b"q\x00" + MANY + b"tq\x01(" + b"h\x00h\x01R" * 900_000 + b"t",
    "names storages with a long tuple": MANY + b"tq\x00(" + b"h\x00Q" * 900_000 + b"t",
    "names classes with long texts": text("a" * 60_000) + b"q\x00(" + b"h\x00h\x00\x93" * 900_000 + b"t",
    "hashes one long number": b"\x8b" + struct.pack("<i", 10**7) + b"\xff" * 10**7 + b"q\x00}(" + b"h\x00N" * 10**6 + b"u",
    "chooses numbers of equal hash": b"}(" + b"".join(
        b"\x8a\x10" + (k * (2**61 - 1)).to_bytes(16, "little") + b"N" for k in range(1, 200_000)) + b"u",
    "has a long row of digits": b"I" + b"9" * 65_000 + b"\n",
    "never ends": b"N0" * 5_000_000,
    "nests tuples": b")" + b"\x85" * 2_000_000,
    "nests calls": name("torch._tensor", "_rebuild_from_type_v2") + b"q\x00)" + b"q\x01h\x00N)(h\x00h\x01NNtR" * 1_000,
    "holds a dictionary in itself": b"}q\x00(" + b"".join(text(f"k{i}") + b"h\x00" for i in range(100)) + b"u",
    "shares one dictionary a million ways": b"}q\x00" + text("a") + TENSOR + b"s" + b"".join(
        b"}q" + bytes([i + 1]) + b"(" + b"".join(text(f"{k}") + b"h" + bytes([i]) for k in range(99)) + b"u" for i in range(5)),
    "has long names of names": b"}q\x00(" + text("k" * 60_000) + b"}(" + b"".join(
        text(f"{i}") + TENSOR for i in range(2_000)) + b"uu",
    "numbers a storage with a list": name("torch._utils", "_rebuild_tensor_v2") + b"((" + text("storage")
    + name("torch", "FloatStorage") + b"]q\x00h\x00a" + text("cpu") + b"K\x10tQ" + b"K\x00K\x04\x85K\x01\x85\x89}tR",
    "has a tensor of endless dimensions": name("torch._utils", "_rebuild_tensor_v2") + b"((" + text("storage")
    + name("torch", "FloatStorage") + text("0") + text("cpu") + b"K\x10tQ" + b"K\x00" + b"(" + b"K\x01" * 10**6 + b"t"
    + b"(" + b"K\x01" * 10**6 + b"t\x89}tR",
}  # fmt: skip


def legacy(path: Path, pickle: bytes) -> None:
    """Write the pickle as PyTorch did before 1.6."""
    magic = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
    head = magic + b"\x80\x02M\xe9\x03." + b"\x80\x02}" + text("little_endian") + b"\x88s."
    keys = b"\x80\x02]" + text("0") + b"a."
    path.write_bytes(head + pickle + keys + struct.pack("<q", 16) + bytes(64))


def _written(folder: Path, files: dict[str, Callable[[Path], None]], suffix: str) -> list[Path]:
    for kind, write in files.items():
        write(folder / f"{kind}{suffix}")
    return [folder / f"{kind}{suffix}" for kind in files]


@pytest.mark.parametrize("form", [torch_zip, pytest.param(legacy, marks=pytest.mark.slow)])
def test_a_pickle_that_costs_much_is_refused_or_read_within_seconds(tmp_path: Path, form: Callable) -> None:
    sound = b"}" + text("a") + TENSOR + b"s"
    writers = {
        kind: partial(form, pickle=b"\x80\x02" + pickle + b".") for kind, pickle in {"sound": sound, **PICKLES}.items()
    }
    said = outcomes(_written(tmp_path, writers, ".pth"))
    assert said["sound"] == "read 1", "so the others are refused for their pickles"


def archive_of_many_entries(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        for i in range(150_000):
            archive.writestr(f"archive/data/{i}", b"")


def archive_that_says_it_has_a_long_directory(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", bytes(20_000_000))
    data = bytearray(path.read_bytes())
    struct.pack_into("<II", data, len(data) - 10, len(data) - 22, 0)
    path.write_bytes(data)


def compressed_pickle(path: Path) -> None:
    torch_zip(path, b"\x80\x02" + b"N0" * 50_000_000 + b".", compressed=True)


def entries_that_share_one_storage(path: Path) -> None:
    """A thousand tensors, each of which takes the whole file."""
    count = 1 << 22
    tensor = (
        name("torch._utils", "_rebuild_tensor_v2") + b"((" + text("storage") + name("torch", "FloatStorage") + text("0")
        + text("cpu") + b"J" + struct.pack("<i", count) + b"tQK\x00J" + struct.pack("<i", count) + b"\x85K\x01\x85\x89}tR"
    )  # fmt: skip
    with zipfile.ZipFile(path, "w") as archive:
        pickle = b"\x80\x02}(" + b"".join(text(f"k{i}") + tensor for i in range(1000)) + b"u."
        archive.writestr("archive/data.pkl", pickle)
        archive.writestr("archive/data/0", bytes(4 * count))


ARCHIVES = (
    archive_of_many_entries,
    archive_that_says_it_has_a_long_directory,
    compressed_pickle,
    entries_that_share_one_storage,
)


def test_an_archive_that_costs_much_is_refused(tmp_path: Path) -> None:
    said = outcomes(_written(tmp_path, {write.__name__: write for write in ARCHIVES}, ".pth"))
    assert all(each.startswith("refused") for each in said.values())


def header(path: Path, entries: str | bytes, data: bytes = bytes(8)) -> None:
    encoded = entries.encode() if isinstance(entries, str) else entries
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)


def one(shape: object = (2,), offsets: object = (0, 8), dtype: object = "F32") -> str:
    return json.dumps({"dtype": dtype, "shape": shape, "data_offsets": offsets})


HEADERS = {
    "a long name": '{"' + "a" * 5_000_000 + '": ' + one([1]) + "}",
    "a long shape": '{"a": ' + one([1] * 1_000_000) + "}",
    "a long type": '{"a": ' + one(dtype="F" * 1_000_000) + "}",
    "a long number": '{"a": {"dtype": "F32", "shape": [' + "9" * 1_000_000 + '], "data_offsets": [0, 8]}}',
    "sizes beyond all memory": '{"a": ' + one([2**62, 2**62, 0], (0, 0)) + "}",
    "a dictionary for a shape": '{"a": ' + one({"2": 1}) + "}",
    "a text for offsets": '{"a": ' + one(offsets="08") + "}",
    "truth for a size": '{"a": ' + one([True, 2]) + "}",
    "nested lists": '{"a": ' + "[" * 500_000,
    "two million objects": '{"a": [' + "{}," * 2_000_000 + "{}]}",
    "many tensors": "{" + ",".join(f'"{i}": ' + one([0], [0, 0]) for i in range(LIMITS["tensors"] + 1)) + "}",
    "a name twice": '{"a": ' + one() + ', "a": ' + one() + "}",
    "a surrogate in a name": '{"\\ud800": ' + one([1]) + "}",
    "bytes that are no text": b'{"\xff": 1}',
    "too many bytes": b" " * (20 << 20),
}


def test_a_header_of_another_form_is_refused_in_one_short_sentence(tmp_path: Path) -> None:
    writers = {kind: partial(header, entries=entries) for kind, entries in HEADERS.items()}
    said = outcomes(_written(tmp_path, writers, ".safetensors"))
    assert all(each.startswith("refused") for each in said.values())


INDICES = {
    "itself": {"a": "m.safetensors.index.json"},
    "another index": {"a": "other.safetensors.index.json"},
    "a path upwards": {"a": "../m.safetensors"},
    "an absolute path": {"a": "/etc/passwd"},
    "a file of another kind": {"a": "notes.txt"},
    "a number": {"a": 3},
    "a list": ["m.safetensors"],
    "a list of lists": {"a": ["m.safetensors"]},
    "a name that no disk takes": {"a": "\udcff\0.safetensors"},
    "a long name": {"a": "m" * 1_000_000 + ".safetensors"},
    "many shards": {str(i): f"{i}.safetensors" for i in range(LIMITS["shards"] + 1)},
    "a tensor that no shard has": {"b": "m.safetensors"},
}


@pytest.mark.parametrize("kind", INDICES)
def test_an_index_that_names_no_shard_in_its_folder_is_refused(tmp_path: Path, kind: str) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "m.safetensors")
    (tmp_path / "notes.txt").write_text("secret")
    for file in ("m", "other"):
        (tmp_path / f"{file}.safetensors.index.json").write_text(json.dumps({"weight_map": INDICES[kind]}))
    with pytest.raises(T2VError, match=r"m\.safetensors\.index\.json") as caught:
        read_file(tmp_path / "m.safetensors.index.json")
    assert len(str(caught.value)) < 1000


def test_a_shard_may_be_a_link_within_its_folder_or_the_cache_of_hugging_face_and_nowhere_else(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "elsewhere.safetensors")
    blob = tmp_path / "hub" / "blobs" / "0a1b"
    folder = tmp_path / "hub" / "snapshots" / "1"
    for each in (blob.parent, folder):
        each.mkdir(parents=True)
    save_file({"a": torch.zeros(2)}, blob)
    (folder / "m.safetensors.index.json").write_text('{"weight_map": {"a": "m.safetensors"}}')
    shard = folder / "m.safetensors"
    shard.symlink_to(blob)
    assert set(read_file(folder / "m.safetensors.index.json")) == {"a"}
    shard.unlink()
    shard.symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(T2VError, match="is a link"):
        read_file(folder / "m.safetensors.index.json")


SURVIVE = """
import os, sys, torch
from tests.support.checkpoints import SMALL
from t2v_models.checkpoints import apply_loras, load_state_dict, load_unet, open_checkpoint, read_lora
from t2v_models.checkpoints.lora_pairs import Lora, LoraPair
*models, lora = sys.argv[1:]
kept = {"LoRA": [half for pair in read_lora(lora, SMALL).unet.values() for half in (pair.up, pair.down)]}
for path in models:
    checkpoint, unet = open_checkpoint(path), load_unet(path)
    kept[f"{path}: state dict"] = list(load_state_dict(path).values())
    kept[f"{path}: network"] = list(unet.parameters())
    kept[f"{path}: parts"] = list((checkpoint.unet() | checkpoint.vae() | checkpoint.text_encoder()).values())
    merged = load_unet(path)
    apply_loras(merged, [(lora, 0.5)])
    kept[f"{path}: network with a LoRA"] = list(merged.parameters())
sums = {kind: [float(tensor.sum()) for tensor in tensors] for kind, tensors in kept.items()}
for path in sys.argv[1:]:
    open(path, "r+b").write(b"x" * os.path.getsize(path))
assert {kind: [float(tensor.sum()) for tensor in tensors] for kind, tensors in kept.items()} == sums
for path in sys.argv[1:]:
    open(path, "wb").close()
assert {kind: [float(tensor.sum()) for tensor in tensors] for kind, tensors in kept.items()} == sums
print("right")
"""


def test_tensors_survive_that_their_file_is_written_over_and_truncated(tmp_path: Path) -> None:
    """A view of a mapped file would end the process (SIGBUS)."""
    models = [tmp_path / name for name in ("a.safetensors", "a.pth", "a.old.pth")]
    save_file(all_in_one(), models[0])
    torch.save(all_in_one(), models[1])
    torch.save(all_in_one(), models[2], _use_new_zipfile_serialization=False)
    save_file(kohya(pairs(), "diffusers"), tmp_path / "lora.safetensors")
    done = child(SURVIVE, *models, tmp_path / "lora.safetensors", seconds=60)
    assert (done.returncode, done.stdout.strip()) == (0, "right"), done.stderr[-500:]


@pytest.mark.parametrize("form", ["safetensors", "pth"])
def test_a_file_that_changes_between_its_opening_and_its_reading_is_named(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"a.{form}"
    save_file(in_layout("modelscope"), path) if form == "safetensors" else torch.save(in_layout("modelscope"), path)
    for change in (lambda: path.write_bytes(b"x" * 100), path.unlink):
        checkpoint = open_checkpoint(path)
        kept = path.read_bytes()
        change()
        with pytest.raises(T2VError, match=rf"a\.{form} (was changed|cannot be read)"):
            checkpoint.unet()
        path.write_bytes(kept)
