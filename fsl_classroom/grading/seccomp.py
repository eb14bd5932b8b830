"""A seccomp filter that denies a worker system calls it has no need for. Linux on x86_64 and aarch64, through ctypes.

The numbers come from the kernel's tables (arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column in the table, AUDIT_ARCH
_X32 = 0x40000000  # on x86_64, numbers from here on reach the same calls a second time
# name: (x86_64, aarch64); None where the architecture has no such call.
_DENIED: dict[str, tuple[int | None, int | None]] = {
    # network, also between processes
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    # other programs
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
    # inspecting and controlling other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438), "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "process_madvise": (440, 440),
    "process_mrelease": (448, 448), "move_pages": (279, 239), "migrate_pages": (256, 238), "setpriority": (141, 140),
    "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119), "sched_setparam": (142, 118),
    "sched_setattr": (314, 274), "ioprio_set": (251, 30), "setpgid": (109, 154), "setsid": (112, 157),
    "perf_event_open": (298, 241), "bpf": (321, 280),
    # attributes of files, which Landlock does not control
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None),
    "futimesat": (261, None), "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16), "setxattrat": (463, 463),
    "removexattrat": (466, 466), "file_setattr": (469, 469), "flock": (73, 32), "quotactl": (179, 60),
    "quotactl_fd": (443, 443), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262), "inotify_init": (253, None), "inotify_init1": (294, 26),
    # memory that no limit counts, and objects that outlive the process
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "shmat": (30, 196), "msgget": (68, 186),
    "semget": (64, 190), "mq_open": (240, 180), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218),
    # rights, mounts and the machine itself
    "setuid": (105, 146), "setgid": (106, 144), "setreuid": (113, 145), "setregid": (114, 143), "setresuid": (117, 147),
    "setresgid": (119, 149), "setgroups": (116, 159), "setfsuid": (122, 151), "setfsgid": (123, 152), "capset": (126, 91),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442), "sethostname": (170, 161),
    "setdomainname": (171, 162), "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171),
    "clock_adjtime": (305, 266), "reboot": (169, 142), "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "swapon": (167, 224),
    "swapoff": (168, 225), "acct": (163, 89), "syslog": (103, 116), "personality": (135, 92), "vhangup": (153, 58),
    "iopl": (172, None), "ioperm": (173, None), "modify_ldt": (154, None),
}  # fmt: skip
_CLONE, _CLONE3, _KILL, _TGKILL = (56, 220), 435, (62, 129), (234, 131)
_PRCTL, _PRLIMIT = (157, 167), (302, 261)
_CLONE_THREAD = 0x10000
# Signals for files that become ready: a file may have another process as its owner, which then gets any signal.
_FCNTL, _IOCTL = (72, 25), (16, 29)
_OWNER_COMMANDS = (8, 10, 15, 1024, 1026)  # F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY
_OWNER_REQUESTS = (0x5452, 0x8901, 0x8902)  # FIOASYNC, FIOSETOWN, SIOCSPGRP
_F_SETFL, _O_ASYNC = 4, 0x2000
# Files without a name, which nobody can count. openat2 has its flags in memory, where a filter cannot read them.
_OPEN, _OPENAT, _OPENAT2, _O_TMPFILE = (2, None), (257, 56), 437, 0x400000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF instructions
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCH, _ARGUMENT_0, _ARGUMENT_1, _ARGUMENT_2 = (
    0,
    4,
    16,
    24,
    32,
)  # offsets in struct seccomp_data, little-endian
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_Line = tuple[int, int, int, int]
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2


def problem() -> str | None:
    """Returns why there is no filter for this machine's processor, or None if there is one."""
    if platform.machine() in _ARCHITECTURES:
        return None
    return f"seccomp filters are written for {' and '.join(_ARCHITECTURES)}, and this is {platform.machine()}"


def _program(process: int) -> list[_Line]:
    """Returns the filter for the process with this id: instructions (code, jump if true, jump if false, value)."""
    column, architecture = _ARCHITECTURES[platform.machine()]
    refuse = (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    allow = (_RETURN, 0, 0, _ALLOW)
    program = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if column == 0:
        program += [(_AT_LEAST, 0, 1, _X32), refuse]
    for numbers in _DENIED.values():
        if numbers[column] is not None:
            program += [(_EQUAL, 0, 1, numbers[column]), refuse]
    # Without these the C library falls back to clone and openat, whose flags a filter can read.
    for number in (_CLONE3, _OPENAT2):
        program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    program += _files(column, refuse, allow)
    # clone may start threads, but no processes.
    program += [
        (_EQUAL, 0, 4, _CLONE[column]),
        (_LOAD, 0, 0, _ARGUMENT_0),
        (_ANY_BIT, 0, 1, _CLONE_THREAD),
        allow,
        refuse,
    ]
    for numbers in (_KILL, _TGKILL):  # a process may send signals to itself only
        program += [(_EQUAL, 0, 4, numbers[column]), (_LOAD, 0, 0, _ARGUMENT_0), (_EQUAL, 0, 1, process), allow, refuse]
    program += [(_EQUAL, 0, 4, _PRLIMIT[column]), (_LOAD, 0, 0, _ARGUMENT_0), (_EQUAL, 0, 1, 0), allow, refuse]
    program += [(_EQUAL, 0, 5, _PRCTL[column]), (_LOAD, 0, 0, _ARGUMENT_0)]
    program += [(_EQUAL, 2, 0, _PR_SET_PDEATHSIG), (_EQUAL, 1, 0, _PR_SET_DUMPABLE), allow, refuse]
    return [*program, allow]


def _files(column: int, refuse: _Line, allow: _Line) -> list[_Line]:
    """Returns the part of the filter about files: no signals to owners, and no files without a name."""
    owners = [(_LOAD, 0, 0, _ARGUMENT_1)]
    for command in _OWNER_COMMANDS:
        owners += [(_EQUAL, 0, 1, command), refuse]
    owners += [(_EQUAL, 1, 0, _F_SETFL), allow, (_LOAD, 0, 0, _ARGUMENT_2), (_ANY_BIT, 0, 1, _O_ASYNC), refuse, allow]
    requests = [(_LOAD, 0, 0, _ARGUMENT_1)]
    for request in _OWNER_REQUESTS:
        requests += [(_EQUAL, 0, 1, request), refuse]
    unsupported = (_RETURN, 0, 0, _ERRNO | errno.EOPNOTSUPP)
    parts = [(_FCNTL[column], owners), (_IOCTL[column], [*requests, allow])]
    for numbers, argument in ((_OPEN, _ARGUMENT_1), (_OPENAT, _ARGUMENT_2)):
        parts.append((numbers[column], [(_LOAD, 0, 0, argument), (_ANY_BIT, 0, 1, _O_TMPFILE), unsupported, allow]))
    return [line for number, part in parts if number is not None for line in ((_EQUAL, 0, len(part), number), *part)]


def restrict() -> None:
    """Puts the filter on this process for good. PR_SET_NO_NEW_PRIVS must be set. Raises OSError if the kernel refuses it."""
    program = _program(os.getpid())
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *line) for line in program))

    class Filter(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    filter = Filter(len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(filter), 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"the seccomp filter was refused: {os.strerror(number)}")
