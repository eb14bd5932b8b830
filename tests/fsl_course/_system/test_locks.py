import errno
import os
import socket
import subprocess
import sys

import pytest
from filelock import Timeout

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
    fcntl = pytest.importorskip("fcntl")
    path, flock, removed = tmp_path / "run.lock", fcntl.flock, []

    def removes_first(file: int, operation: int) -> None:
        if not removed:
            removed.append(path.unlink())
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", removes_first)
    with only_run(path):
        assert path.read_text().startswith("process")  # a new file, which others see


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK])
def test_a_disk_without_locks_is_a_warning(tmp_path, monkeypatch, number):
    def refuse(file: int, operation: int) -> None:
        raise OSError(number, "not supported")

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", refuse)
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


def test_the_holder_is_named_without_reading_the_byte_that_windows_locks(tmp_path, monkeypatch):
    """There the first byte is locked, and nobody else can read what is locked."""
    path = tmp_path / "run.lock"
    path.write_bytes(b"\xffrocess 7 on lab-3\n")  # the first byte is not what the message shows
    monkeypatch.setattr(locks.FileLock, "acquire", lambda self: (_ for _ in ()).throw(Timeout(str(path))))
    with pytest.raises(BusyError, match="process 7 on lab-3 holds run.lock"), only_run(path):
        raise AssertionError("two runs at once")
    assert path.read_bytes().startswith(b"\xff")  # the refused one leaves it alone
