from pathlib import Path

import pytest
import torch

from fl_sim.core.errors import StoreError
from fl_sim.runtime import files


def test_tensors_come_back_with_what_is_said_of_them(tmp_path: Path) -> None:
    path = tmp_path / "a" / "x.safetensors"
    tensors = {"z": torch.randn(3, 2).t(), "a": torch.tensor([1, 2])}
    files.write_tensors(path, tensors, {"round": 3})
    back, about = files.read_tensors(path)
    assert about == files.read_about(path) == {"round": 3}
    assert all(torch.equal(back[k], tensors[k]) for k in tensors)


def test_a_torn_last_line_is_not_read_and_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    files.append_line(path, {"n": 1})
    with path.open("a") as file:
        file.write('{"n": 2, "half')
    assert list(files.read_lines(path)) == [{"n": 1}]
    files.append_line(path, {"n": 3})
    assert list(files.read_lines(path)) == [{"n": 1}, {"n": 3}]


def test_a_broken_line_in_the_middle_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text('{"n": 1}\nnonsense\n{"n": 2}\n')
    with pytest.raises(StoreError, match="nonsense"):
        list(files.read_lines(path))


def test_a_failed_write_leaves_the_file_before(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    files.write_json(path, {"n": 1})
    with pytest.raises(ValueError, match="Out of range float values"):
        files.write_json(path, {"n": float("nan")})
    assert files.read_json(path) == {"n": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize("content", [b"", b"not tensors", b"\x80\x04pickle"])
def test_what_is_no_tensor_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"expected tensors written by fl-sim in .*x.safetensors"):
        files.read_tensors(path)
