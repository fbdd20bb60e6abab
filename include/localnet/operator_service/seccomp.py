"""The system-call filter of the sandbox, as a classic BPF program.

Namespaces and limits leave holes that only a filter closes: a user namespace of the algorithm's own would let it mount
memory file systems without a size, shared memory and memfd count towards no process, and VM sockets ignore network
namespaces. So those calls fail as on a kernel that lacks them; everything an ordinary program needs is untouched.
"""

from __future__ import annotations

import errno
import platform
import struct

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data, little endian
_X32_CALLS = 0x40000000
# CLONE_NEWNS, -CGROUP, -UTS, -IPC, -USER, -PID and -NET.
_NEW_NAMESPACES = 0x7E020000
_SOCKET_FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6

# AUDIT_ARCH_* by machine, and the system calls' numbers from the kernel's asm/unistd.h.
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE = {"x86_64": 56, "aarch64": 220}
_SOCKET = {"x86_64": 41, "aarch64": 198}
# Since 5.1 new calls have the same number everywhere: io_uring_setup, _enter, _register; open_tree, move_mount, fsopen,
# fsconfig, fsmount, fspick; clone3 (its flags lie in memory, which a filter can't read; libraries fall back to clone);
# pidfd_getfd; mount_setattr; memfd_secret.
_REFUSED_EVERYWHERE = (425, 426, 427, 428, 429, 430, 431, 432, 433, 435, 438, 442, 447)
# fmt: off
_REFUSED = {
    "x86_64": {
        "unshare": 272, "setns": 308, "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161,
        "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312,
        "shmget": 29, "shmat": 30, "shmctl": 31, "memfd_create": 319,
        "add_key": 248, "request_key": 249, "keyctl": 250,
        "bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "fanotify_init": 300,
        "name_to_handle_at": 303, "open_by_handle_at": 304,
        "init_module": 175, "finit_module": 313, "delete_module": 176, "kexec_load": 246, "kexec_file_load": 320,
        "reboot": 169, "swapon": 167, "swapoff": 168, "acct": 163, "syslog": 103, "quotactl": 179,
    },
    "aarch64": {
        "unshare": 97, "setns": 268, "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51,
        "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272,
        "shmget": 194, "shmat": 196, "shmctl": 195, "memfd_create": 279,
        "add_key": 217, "request_key": 218, "keyctl": 219,
        "bpf": 280, "perf_event_open": 241, "userfaultfd": 282, "fanotify_init": 262,
        "name_to_handle_at": 264, "open_by_handle_at": 265,
        "init_module": 105, "finit_module": 273, "delete_module": 106, "kexec_load": 104, "kexec_file_load": 294,
        "reboot": 142, "swapon": 224, "swapoff": 225, "acct": 89, "syslog": 116, "quotactl": 60,
    },
}
# fmt: on


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


def _refuse(number: int) -> bytes:
    return _instruction(_RETURN, _ERRNO | number)


def filter_program(machine: str | None = None) -> bytes:
    """Return the filter for a machine type, by default this one.

    :param machine: as ``uname -m`` says it
    :raises OSError: when the machine's system calls are not known here
    """
    machine = machine or platform.machine()
    if machine not in _AUDIT:
        raise OSError(
            f"the sandbox's system-call filter is written for {' and '.join(_AUDIT)}, this is {machine}"
        )
    program = [
        # A 32-bit call has other numbers; a program that makes one is up to something.
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_EQUAL, _AUDIT[machine], 1, 0),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _NUMBER),
    ]
    if machine == "x86_64":
        program += [_instruction(_AT_LEAST, _X32_CALLS, 0, 1), _refuse(errno.ENOSYS)]
    for number in (*_REFUSED_EVERYWHERE, *_REFUSED[machine].values()):
        answer = errno.ENOSYS if number in (*_REFUSED_EVERYWHERE,) else errno.EPERM
        program += [_instruction(_EQUAL, number, 0, 1), _refuse(answer)]
    program += [
        _instruction(_EQUAL, _CLONE[machine], 0, 4),
        _instruction(_LOAD, _FIRST_ARGUMENT),
        _instruction(_ANY_BIT, _NEW_NAMESPACES, 0, 1),
        _refuse(errno.EPERM),
        _instruction(_RETURN, _ALLOW),
        _instruction(_EQUAL, _SOCKET[machine], 1, 0),
        _instruction(_RETURN, _ALLOW),
        _instruction(_LOAD, _FIRST_ARGUMENT),
        *[
            _instruction(_EQUAL, family, len(_SOCKET_FAMILIES) - position, 0)
            for position, family in enumerate(_SOCKET_FAMILIES)
        ],
        _refuse(errno.EAFNOSUPPORT),
        _instruction(_RETURN, _ALLOW),
    ]
    return b"".join(program)
