"""Files that a stopped run continues from are whole, or an error says that they are not."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from t2v_models.atomic_files import write_tensors, write_text
from t2v_models.errors import T2VError


def test_tensors_that_share_memory_come_back_whole(tmp_path):
    whole = torch.arange(12.0).view(3, 4)
    given = {"whole": whole, "turned": whole.T, "part": whole[:, 1:3], "alone": whole[0, 0]}
    write_tensors(tmp_path / "state.safetensors", given, {"step": "3"})
    back = load_file(tmp_path / "state.safetensors")
    assert all(torch.equal(back[name], value) for name, value in given.items())
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


@pytest.mark.parametrize(
    "write",
    [lambda path: write_tensors(path, {"x": torch.rand(1 << 20)}), lambda path: write_text(path, "x" * (4 << 20))],
)
def test_a_full_disk_gives_one_sentence_and_the_old_file_stays(small_disk, write):
    path = small_disk / "state.safetensors"
    write_tensors(path, {"x": torch.ones(3)})
    before = path.read_bytes()
    with pytest.raises(T2VError, match="make room on its disk"):
        write(path)
    assert [each.name for each in small_disk.iterdir()] == ["state.safetensors"]
    assert path.read_bytes() == before
