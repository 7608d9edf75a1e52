"""What the sandbox asks of Linux, through ctypes: namespaces, mounts, Landlock, a filter of system calls, privileges.

Standard library only. Every function raises OSError where the kernel refuses.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

_libc = ctypes.CDLL(None, use_errno=True)
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Machine -> column of `_CALLS`, and its AUDIT_ARCH constant."""

# <sched.h>
_NEW_MOUNT, _NEW_CGROUP, _NEW_UTS, _NEW_IPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
_NEW_USER, _NEW_PID, _NEW_NET = 0x10000000, 0x20000000, 0x40000000
# <sys/mount.h>
MS_NOSUID, MS_NODEV, MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
_MNT_DETACH = 2
# <sys/prctl.h>
_PDEATHSIG, _SECCOMP, _CAPBSET_DROP, _SECUREBITS, _SUBREAPER, _NO_NEW_PRIVS = 1, 22, 24, 28, 36, 38


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _syscall(number: int, what: str, *arguments: object) -> int:
    return _checked(_libc.syscall(ctypes.c_long(number), *arguments), what)


def _prctl(option: int, *values: object) -> None:
    padded = [*values, 0, 0, 0, 0][:4]
    _checked(_libc.prctl(option, *(ctypes.c_ulong(v) if isinstance(v, int) else v for v in padded)), f"prctl {option}")


def _machine() -> tuple[int, int]:
    machine = os.uname().machine
    if machine not in _MACHINES:
        raise OSError(f"no table of system calls for {machine}")
    return _MACHINES[machine]


# --- processes ---


def die_with_parent() -> None:
    """SIGKILL for this process when the thread that made it ends (prctl(2), PR_SET_PDEATHSIG)."""
    _prctl(_PDEATHSIG, 9)


def adopt_orphans() -> None:
    """Make this process the parent of every descendant that loses its own (PR_SET_CHILD_SUBREAPER)."""
    _prctl(_SUBREAPER, 1)


def drop_capabilities() -> None:
    """No capability now, and none after an exec as root either (capabilities(7), securebits)."""
    _prctl(_SECUREBITS, 0x2F)  # NOROOT, NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE, the first two locked
    for capability in range(int(_read("/proc/sys/kernel/cap_last_cap", "40")) + 1):
        _prctl(_CAPBSET_DROP, capability)
    header = struct.pack("=Ii", 0x20080522, 0)
    _checked(_libc.capset(header, bytes(24)), "capset")


def no_new_privileges() -> None:
    """No setuid program gives this process anything; a filter and Landlock need it."""
    _prctl(_NO_NEW_PRIVS, 1)


def _read(path: str, default: str) -> str:
    try:
        with open(path) as f:
            return f.read()
    except OSError:
        return default


# --- namespaces and mounts ---


def unshare_all() -> None:
    """New user, process, network, IPC, host name, mount and cgroup namespaces; processes: from the next fork on."""
    flags = _NEW_USER | _NEW_PID | _NEW_NET | _NEW_IPC | _NEW_UTS | _NEW_MOUNT | _NEW_CGROUP
    _checked(_libc.unshare(flags), "unshare")


def mounts_private() -> None:
    """Nothing mounted from here on is seen outside this namespace."""
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)


def mount_new(kind: str, target: str, flags: int, options: str = "") -> None:
    """A new file system of a kind (tmpfs, proc)."""
    _mount(kind, target, kind, flags, options)


def mount_bind(source: str, target: str, read_only: bool = True) -> None:
    """What lies at `source`, seen at `target`, all below it too; read-only, without devices and setuid programs."""
    _mount(source, target, None, _MS_BIND | _MS_REC)
    if read_only:
        freeze(target, recursive=True, flags=1 | 2 | 4)


def freeze(target: str, recursive: bool = False, flags: int = 1) -> None:
    """Mount attributes (1 read-only, 2 no setuid, 4 no devices) of what is mounted (mount_setattr(2), Linux 5.12)."""
    attributes = struct.pack("=QQQQ", flags, 0, 0, 0)
    where = (ctypes.c_int(-100), target.encode(), ctypes.c_uint(0x8000 if recursive else 0))
    _syscall(442, f"mount_setattr {target}", *where, attributes, ctypes.c_size_t(len(attributes)))


def change_root(folder: str) -> None:
    """Make `folder` (a mount) the root and forget the old one (pivot_root(2), note on pivot_root(".", "."))."""
    os.chdir(folder)
    _syscall((155, 41)[_machine()[0]], "pivot_root", b".", b".")
    _checked(_libc.umount2(b".", _MNT_DETACH), "umount")
    os.chdir("/")


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str = "") -> None:
    what = [None if text is None else text.encode() for text in (source, target, kind)]
    data = options.encode() or None
    _checked(_libc.mount(what[0], what[1], what[2], ctypes.c_ulong(flags), data), f"mount {target}")


# --- Landlock ---


def landlock_abi() -> int:
    """Version of the kernel's Landlock; 0: none."""
    found = _libc.syscall(ctypes.c_long(444), None, ctypes.c_size_t(0), ctypes.c_uint(1))
    return max(0, found)


def landlock(readable: Iterable[str], writable: Iterable[str]) -> None:
    """From now on only these files and folders, no TCP (ABI 4), no signal to a process outside (ABI 6): landlock(7)."""
    abi = landlock_abi()
    if not abi:
        raise OSError("no Landlock in this kernel")
    everything = (1 << (13 if abi < 2 else 14 if abi < 3 else 15 if abi < 5 else 16)) - 1
    attributes = struct.pack("=QQQ", everything, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = _syscall(444, "landlock_create_ruleset", attributes, ctypes.c_size_t(size), ctypes.c_uint(0))
    file_rights = 1 | 2 | 4 | (everything & (1 << 14 | 1 << 15))  # execute, write, read, truncate, ioctl
    for paths, rights in ((readable, 1 | 4 | 8), (writable, everything)):
        for path in paths:
            at = os.open(path, os.O_PATH | os.O_CLOEXEC)
            allowed = rights if os.path.isdir(path) else rights & file_rights
            rule = struct.pack("=Qi", allowed, at)
            _syscall(445, f"landlock {path}", ctypes.c_int(ruleset), ctypes.c_int(1), rule, ctypes.c_uint(0))
            os.close(at)
    _syscall(446, "landlock_restrict_self", ctypes.c_int(ruleset), ctypes.c_uint(0))
    os.close(ruleset)


# --- system calls ---

_CALLS = {
    "socket": (41, 198),  # a socketpair stays: its ends know none but each other
    # memory that no limit of a process counts
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "msgget": (68, 186),
    "semget": (64, 190), "mq_open": (240, 180),
    # ways round the other rules: namespaces and mounts of its own, other processes, rings that no filter sees
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "mount_setattr": (442, 442), "ptrace": (101, 117), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "pidfd_getfd": (438, 438), "open_by_handle_at": (304, 265),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    # parts of the kernel that no test of a program needs
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "add_key": (248, 217),
    "request_key": (249, 218), "keyctl": (250, 219), "kexec_load": (246, 104),
}  # fmt: skip
_CLONE, _CLONE3 = (56, 220), (435, 435)
_LOAD, _EQUAL, _ABOVE, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000, 0x80000000  # <linux/seccomp.h>
_EPERM, _ENOSYS = 1, 38


def filter_calls() -> None:
    """From now on each of `_CALLS` fails with EPERM, and so does a clone into a new user namespace (seccomp(2)).

    clone3 fails with ENOSYS, whose arguments a filter cannot read; the C library then takes clone.
    """
    at, architecture = _machine()
    steps = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
        (_ABOVE, 0, 1, 0x40000000),  # x32's numbers for the same calls
        (_RETURN, 0, 0, _REFUSE | _EPERM),
        (_EQUAL, 0, 1, _CLONE3[at]),
        (_RETURN, 0, 0, _REFUSE | _ENOSYS),
    ]
    for numbers in _CALLS.values():
        steps += [(_EQUAL, 0, 1, numbers[at]), (_RETURN, 0, 0, _REFUSE | _EPERM)]
    steps += [
        (_EQUAL, 0, 2, _CLONE[at]),
        (_LOAD, 0, 0, 16),  # its first argument: flags
        (_ANY_BIT, 1, 0, _NEW_USER),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE | _EPERM),
    ]
    code = b"".join(struct.pack("=HBBI", *step) for step in steps)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(steps), ctypes.addressof(buffer))
    _prctl(_SECCOMP, 2, program)
