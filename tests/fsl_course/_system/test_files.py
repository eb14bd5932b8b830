from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fsl_course._system.files import replace_file


def test_the_folder_is_made_and_the_file_replaced(tmp_path: Path):
    path = tmp_path / "deep" / "file.bin"
    replace_file(path, b"old")
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in path.parent.iterdir()] == ["file.bin"]


@pytest.mark.parametrize("step", ["os.fsync", "os.replace"])
def test_a_failure_leaves_the_old_file_and_no_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str):
    path = tmp_path / "file.bin"
    replace_file(path, b"old")

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(step, full)
    with pytest.raises(OSError, match="No space left") as error:
        replace_file(path, b"new")
    assert error.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]


def test_a_file_where_a_folder_should_be_is_an_error(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"in the way")
    with pytest.raises(OSError):  # noqa: PT011 - its words are the system's
        replace_file(tmp_path / "file" / "new.bin", b"x")


def test_writers_at_the_same_time_leave_one_whole_file(tmp_path: Path):
    contents = [bytes([n]) * 100_000 for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: replace_file(tmp_path / "file.bin", content), contents))
    assert (tmp_path / "file.bin").read_bytes() in contents
    assert len(list(tmp_path.iterdir())) == 1
