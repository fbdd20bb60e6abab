"""What runs inside the sandbox before the algorithm: it gives up every right, sets the limits, and becomes the algorithm.

The sandbox runs this file's text with ``python -I -S -c``, so it uses the standard library only and imports nothing of
the project, which is not there. Its orders come as JSON on standard input, where no process list shows them.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import sys

_SET_DUMPABLE, _DROP_BOUNDING, _SET_SECCOMP, _NO_NEW_PRIVILEGES, _SECCOMP_FILTER = 4, 24, 22, 38, 2
_CLONE_NEWUSER = 0x10000000
_CAPABILITIES = 64

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _prctl(option: int, *values: object) -> None:
    arguments = [ctypes.c_ulong(value) if isinstance(value, int) else value for value in values]
    arguments += [ctypes.c_ulong(0)] * (4 - len(arguments))
    if _libc.prctl(option, *arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def _drop_bounding_set() -> None:
    for capability in range(_CAPABILITIES):
        with contextlib.suppress(OSError):  # unknown to this kernel, or already gone
            _prctl(_DROP_BOUNDING, capability)


def _become(uid: int, inside: int) -> None:
    """Leave root for an unprivileged uid, and the machine's user namespace for one of its own.

    :param inside: what the uid is called in that namespace
    """
    _drop_bounding_set()
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    _prctl(_SET_DUMPABLE, 1)  # otherwise the files in /proc/self stay root's
    if (
        _libc.unshare(ctypes.c_int(_CLONE_NEWUSER)) == 0
    ):  # a machine may forbid it; the uid is bare of rights anyway
        for name, text in (
            ("setgroups", "deny"),
            ("gid_map", f"{inside} {uid} 1"),
            ("uid_map", f"{inside} {uid} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
        _drop_bounding_set()


def main() -> None:
    """Read the orders, obey them, execute the command."""
    orders = json.loads(sys.stdin.buffer.read())
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.umask(0o022)
    os.nice(orders["nice"])
    for name, value in orders["limits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
    if orders["uid"] is not None:
        _become(orders["uid"], orders["uid inside"])
    _prctl(_NO_NEW_PRIVILEGES, 1)
    program = bytes.fromhex(orders["filter"])
    _prctl(_SET_SECCOMP, _SECCOMP_FILTER, ctypes.byref(_Program(len(program) // 8, program)))
    os.execvpe(orders["command"][0], orders["command"], {**os.environ, **orders["variables"]})


if __name__ == "__main__":
    main()
