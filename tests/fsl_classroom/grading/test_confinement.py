"""Landlock, seccomp and limits alone: a child process confines itself and tries to break out, without other guards."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fsl_classroom.grading import confinement, seccomp

ROOT = Path(__file__).resolve().parents[3]
needs_landlock = pytest.mark.skipif(
    confinement.problem() is not None, reason=f"this system cannot confine: {confinement.problem()}"
)
TRIES = """
import ctypes, json, os, resource, signal, socket, sys, threading
from pathlib import Path
from fsl_classroom.grading import confinement
scratch, victim, parent = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
handle = confinement.ruleset(scratch)
confinement.set_limits(20, 300)
confinement.confine(handle)
found = {}
def attempt(name, function):
    try:
        found[name] = "done: " + str(function())[:60]
    except BaseException as error:
        found[name] = type(error).__name__
libc = ctypes.CDLL(None, use_errno=True)
attempt("write inside", lambda: (scratch / "mine").write_text("x"))
attempt("make inside", lambda: (scratch / "folder").mkdir())
attempt("import", lambda: __import__("wave"))
attempt("thread", lambda: (t := threading.Thread(target=int), t.start(), t.join()) and "ran")
attempt("read", lambda: (victim / "secret").read_text())
attempt("list", lambda: os.listdir(victim))
attempt("home", lambda: os.listdir(os.path.expanduser("~")))
attempt("passwords", lambda: Path("/etc/shadow").read_text())
attempt("environment", lambda: Path("/proc/self/environ").read_text())
attempt("course", lambda: open(sys.modules["fsl_course"].__file__).read())
attempt("classroom", lambda: open(sys.modules["fsl_classroom"].__file__).read())
attempt("exercises", lambda: os.listdir(os.path.join(os.path.dirname(sys.modules["fsl_classroom"].__file__), "exercises")))
attempt("write", lambda: (victim / "secret").write_text("mine"))
attempt("delete", lambda: (victim / "secret").unlink())
attempt("truncate", lambda: os.truncate(victim / "secret", 0))
attempt("rename", lambda: os.rename(victim / "secret", scratch / "secret"))
attempt("link", lambda: os.link(victim / "secret", scratch / "secret"))
attempt("chmod", lambda: os.chmod(victim / "secret", 0))
attempt("chown", lambda: os.chown(victim / "secret", 1, 1))
attempt("utime", lambda: os.utime(victim / "secret", (0, 0)))
attempt("xattr", lambda: os.setxattr(victim / "secret", "user.x", b"1"))
attempt("tcp", lambda: socket.socket())
attempt("udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
attempt("unix", lambda: socket.socket(socket.AF_UNIX))
attempt("pair", lambda: socket.socketpair())
attempt("fork", lambda: os._exit(9) if os.fork() == 0 else "forked")
attempt("program", lambda: os.posix_spawn("/bin/true", ["true"], {}))
attempt("exec", lambda: os.execv("/bin/true", ["true"]))
attempt("kill", lambda: os.kill(parent, 0))
attempt("prlimit", lambda: resource.prlimit(parent, resource.RLIMIT_NOFILE))
attempt("anonymous file", lambda: os.memfd_create("x"))
attempt("setuid", lambda: os.setuid(1))
attempt("chroot", lambda: os.chroot(scratch))
attempt("ptrace", lambda: found.setdefault("_", 0) or 1 / (libc.ptrace(16, parent, 0, 0) + 1))
attempt("dumpable again", lambda: 1 / (libc.prctl(4, 1, 0, 0, 0) + 1))
attempt("memory", lambda: len(bytearray(10**9)))
attempt("large file", lambda: (signal.signal(signal.SIGXFSZ, signal.SIG_IGN), (scratch / "big").write_bytes(bytes(2**25)))[1])
import fcntl
attempt("owner", lambda: fcntl.fcntl(0, 8, parent))
attempt("owner's signal", lambda: fcntl.fcntl(0, 10, 9))
attempt("asynchronous", lambda: fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | 0x2000))
attempt("nameless file", lambda: os.open(scratch, os.O_TMPFILE | os.O_RDWR))
attempt("unlink inside", lambda: (scratch / "mine").unlink())
attempt("more memory", lambda: resource.setrlimit(resource.RLIMIT_AS, (2**50, 2**50)))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, str]:
    scratch, victim = tmp_path_factory.mktemp("scratch"), tmp_path_factory.mktemp("victim")
    (victim / "secret").write_text("precious")
    before = os.stat(victim / "secret")
    ran = subprocess.run(
        [sys.executable, "-c", TRIES, scratch, victim, str(os.getpid())],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert ran.returncode == 0, ran.stderr
    after = os.stat(victim / "secret")
    assert (victim / "secret").read_text() == "precious"
    assert (after.st_mode, after.st_uid, after.st_mtime) == (before.st_mode, before.st_uid, before.st_mtime)
    return json.loads(ran.stdout.splitlines()[-1])


@needs_landlock
def test_what_an_answer_needs_still_works(found):
    for name in ("write inside", "make inside", "import", "thread"):
        assert found[name].startswith("done"), name


REFUSED = """
read, list, home, passwords, environment, course, classroom, exercises, write, delete, truncate, rename, link, chmod, chown,
utime, xattr,
tcp, udp, unix, pair, fork, program, exec, kill, prlimit, setuid, chroot, anonymous file, more memory,
owner, owner's signal, asynchronous, nameless file, unlink inside
"""


@needs_landlock
@pytest.mark.parametrize("name", [name.strip() for name in REFUSED.split(",")])
def test_nothing_else_does(found, name):
    assert found[name] in ("PermissionError", "OSError", "ValueError"), found[name]


@needs_landlock
def test_nobody_is_traced_and_limits_hold(found):
    # Each call returns -1, so that the attempt divides by 0.
    assert found["ptrace"] == found["dumpable again"] == "ZeroDivisionError"
    assert found["memory"] == "MemoryError"
    assert found["large file"] == "OSError"


def test_an_old_system_is_told_what_is_missing(monkeypatch):
    monkeypatch.setattr(confinement, "landlock_version", lambda: -1)
    assert "no Landlock" in confinement.problem()
    monkeypatch.setattr(confinement, "landlock_version", lambda: 2)
    assert "version 2" in confinement.problem()
    monkeypatch.setattr(confinement, "landlock_version", lambda: 3)
    monkeypatch.setattr(seccomp.platform, "machine", lambda: "riscv64")
    assert "riscv64" in confinement.problem()
    monkeypatch.setattr(confinement.sys, "platform", "darwin")
    assert "needs Linux" in confinement.problem()


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_jump_of_the_filter_lands_inside_and_it_ends_by_allowing(monkeypatch, machine):
    monkeypatch.setattr(seccomp.platform, "machine", lambda: machine)
    program = seccomp._program(1234)
    assert len(program) < 4096  # the longest program that the kernel accepts
    assert program[-1] == (seccomp._RETURN, 0, 0, seccomp._ALLOW)
    for place, (_code, yes, no, _value) in enumerate(program):
        assert max(yes, no) < 256
        assert place + 1 + max(yes, no) < len(program) or (yes, no) == (0, 0)


@pytest.mark.parametrize(
    ("machine", "call", "argument", "allowed"),
    [
        ("x86_64", 0, 0, True),  # read
        ("x86_64", 41, 2, False),  # socket
        ("x86_64", 57, 0, False),  # fork
        ("x86_64", 56, 0x10000, True),  # a thread
        ("x86_64", 56, 17, False),  # a process
        ("x86_64", 435, 0, False),  # clone3
        ("x86_64", 62, 1234, True),  # kill itself
        ("x86_64", 62, 1, False),
        ("x86_64", 157, 4, False),  # PR_SET_DUMPABLE
        ("x86_64", 157, 15, True),  # PR_SET_NAME
        ("x86_64", 0x40000000 + 41, 2, False),
        ("x86_64", 72, (3, 8), False),  # fcntl F_SETOWN
        ("x86_64", 72, (3, 10), False),  # F_SETSIG
        ("x86_64", 72, (3, 4, 0x2000), False),  # F_SETFL with O_ASYNC
        ("x86_64", 72, (3, 4, 0x800), True),  # with O_NONBLOCK
        ("x86_64", 72, (3, 3), True),  # F_GETFL
        ("x86_64", 16, (3, 0x5452), False),  # ioctl FIOASYNC
        ("x86_64", 16, (3, 0x5401), True),  # TCGETS
        ("x86_64", 257, (-100, 0, 0x410000), False),  # openat with O_TMPFILE
        ("x86_64", 257, (-100, 0, 0x10000), True),  # with O_DIRECTORY
        ("x86_64", 2, (0, 0x410000), False),  # open with O_TMPFILE
        ("x86_64", 437, 0, False),  # openat2
        ("aarch64", 25, (3, 15), False),  # F_SETOWN_EX
        ("aarch64", 29, (3, 0x8901), False),
        ("aarch64", 56, (-100, 0, 0x400000), False),
        ("aarch64", 63, 0, True),  # read
        ("aarch64", 198, 2, False),  # socket
        ("aarch64", 220, 0x10000, True),
        ("aarch64", 220, 17, False),
        ("aarch64", 129, 1, False),
        ("aarch64", 261, 0, True),  # prlimit64 of itself
        ("aarch64", 261, 1, False),
    ],
)
def test_the_filter_by_hand(monkeypatch, machine, call, argument, allowed):
    monkeypatch.setattr(seccomp.platform, "machine", lambda: machine)
    program = seccomp._program(1234)
    arguments = argument if isinstance(argument, tuple) else (argument,)
    data = {0: call, 4: seccomp._ARCHITECTURES[machine][1], 16: 0, 24: 0, 32: 0}
    data |= {16 + 8 * number: value for number, value in enumerate(arguments)}
    place, held = 0, 0
    while True:
        code, yes, no, value = program[place]
        place += 1
        if code == seccomp._LOAD:
            held = data[value]
        elif code == seccomp._RETURN:
            break
        else:
            tests = {
                seccomp._EQUAL: held == value,
                seccomp._AT_LEAST: held >= value,
                seccomp._ANY_BIT: held & value != 0,
            }
            place += yes if tests[code] else no
    assert (value == seccomp._ALLOW) is allowed
