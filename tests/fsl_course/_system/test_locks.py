import errno
import os
import socket
import subprocess
import sys
import types

import pytest

from fsl_course._system import locks
from fsl_course._system.locks import BusyError, only_run


def test_a_second_run_is_refused_with_the_name_of_the_first_and_the_file_goes_with_it(tmp_path):
    path = tmp_path / "deep" / "run.lock"
    with only_run(path):
        assert path.read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"
        with (
            pytest.raises(BusyError, match=f"process {os.getpid()} on {socket.gethostname()} holds run.lock"),
            only_run(path),
        ):
            raise AssertionError("two runs at once")
        assert path.exists()  # the refused one leaves it alone
    assert list(path.parent.iterdir()) == []
    with only_run(path):  # and it can be had again
        assert path.exists()


def test_two_names_are_two_locks(tmp_path):
    with only_run(tmp_path / "a.lock"), only_run(tmp_path / "b.lock"):
        assert len(list(tmp_path.iterdir())) == 2


def test_an_error_lets_go(tmp_path):
    with pytest.raises(ZeroDivisionError), only_run(tmp_path / "run.lock"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


HOLDER = """
import sys, time
from fsl_course._system.locks import only_run
with only_run(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_leaves_no_stale_lock(tmp_path):
    path = tmp_path / "run.lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "held\n"
            with pytest.raises(BusyError, match=f"process {other.pid} on "), only_run(path):
                raise AssertionError("two runs at once")
        finally:
            other.kill()
    assert path.exists()
    with only_run(path):
        assert path.read_text().startswith(f"process {os.getpid()} ")


def test_a_file_that_its_holder_removes_meanwhile_is_not_taken_for_the_lock(tmp_path, monkeypatch):
    path, lock, removed = tmp_path / "run.lock", locks._lock, []

    def removes_first(file: int) -> None:
        if not removed:
            removed.append(path.unlink())
        lock(file)

    monkeypatch.setattr(locks, "_lock", removes_first)
    with only_run(path):
        assert path.read_text().startswith("process")  # a new file, which others see


def test_a_disk_without_locks_is_a_warning(tmp_path, monkeypatch):
    def refuse(file: int) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(locks, "_lock", refuse)
    with pytest.warns(UserWarning, match="knows no locks"), only_run(tmp_path / "run.lock"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_the_name_out_of_the_lock_but_not_the_lock(tmp_path, monkeypatch):
    def full(file: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.write", full)
    path = tmp_path / "run.lock"
    with only_run(path), pytest.raises(BusyError, match="another process holds run.lock"), only_run(path):
        raise AssertionError("two runs at once")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_explained(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(OSError, match="could not make .*Name a folder that you may write to"),
        only_run(tmp_path / "file" / "x"),
    ):
        raise AssertionError("made it")
    assert (tmp_path / "file").read_text() == "in the way"


def test_windows_locks_one_byte_behind_the_words(tmp_path, monkeypatch):
    """There byte ranges are locked, by file descriptor, and what is locked cannot be read by others."""
    held, path = {}, tmp_path / "run.lock"

    def locking(file: int, mode: int, count: int) -> None:
        place = os.lseek(file, 0, os.SEEK_CUR)
        assert place > 1000
        if mode == "unlock":
            del held[place]
        elif place in held:
            raise OSError(errno.EACCES, "Permission denied")
        else:
            held[place] = file

    monkeypatch.setattr(locks, "fcntl", None)
    fake = types.SimpleNamespace(locking=locking, LK_NBLCK="lock", LK_UNLCK="unlock")
    monkeypatch.setattr(locks, "msvcrt", fake, raising=False)
    with only_run(path):
        assert path.read_text().startswith("process")
        with pytest.raises(BusyError, match=f"process {os.getpid()} on"), only_run(path):
            raise AssertionError("two runs at once")
    assert held == {}
    assert list(tmp_path.iterdir()) == []
