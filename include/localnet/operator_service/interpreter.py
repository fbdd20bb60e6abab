"""Which host paths the sandbox shows, read-only, so that the system's programs and the project's Python run in it."""

from __future__ import annotations

import os
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[3]
# Programs and libraries. On most systems all but the first are links into it.
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store")
# What the dynamic linker and links below /usr need; nothing else of /etc is shown.
_ETC = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime")
# Not the whole prefix: that of a Python in /usr/local or in a home folder holds other things, too.
_PARTS_OF_A_PYTHON = ("bin", "lib", "lib64", "pyvenv.cfg")


@dataclass(frozen=True)
class View:
    """The read-only part of the sandbox's file system.

    :param links: (target, path) of symbolic links
    :param system: folders bound to the same path
    :param hidden: folders replaced by empty ones because a bound folder contains them
    :param bound: (host path, path inside)
    :param search_path: the algorithm's ``PATH``
    :param libraries: the algorithm's ``LD_LIBRARY_PATH``, or empty
    """

    links: list[tuple[str, str]]
    system: list[str]
    hidden: list[str]
    bound: list[tuple[str, str]]
    search_path: str
    libraries: str

    def shows(self, folder: Path) -> bool:
        """Say whether a folder comes with a system folder, so that it need not be made."""
        shown = any(folder.is_relative_to(path) for path in self.system)
        return shown and not any(folder.is_relative_to(path) and str(folder) != path for path in self.hidden)


def _prefixes(executable: str) -> list[str]:
    """Follow the interpreter's links one by one: a virtual environment's leads to its base, maybe over further links."""
    prefixes = [sys.prefix, sys.base_prefix, sys.base_exec_prefix]
    link = executable
    while True:
        prefixes.append(os.path.dirname(os.path.dirname(link)))
        if not os.path.islink(link):
            break
        link = os.path.normpath(os.path.join(os.path.dirname(link), os.readlink(link)))
    prefixes.append(os.path.dirname(os.path.dirname(os.path.realpath(executable))))
    return list(dict.fromkeys(os.path.normpath(prefix) for prefix in prefixes))


def _below(path: str, folder: str) -> bool:
    return Path(path).is_relative_to(folder)


def view_of_host(state: Path) -> View:
    """Return what a sandbox shows of this machine.

    :param state: the service's own folder, hidden even when it lies in a system folder
    """
    links, system = [], []
    for path in _SYSTEM:
        if os.path.islink(path):
            links.append((os.readlink(path), path))
        elif os.path.isdir(path):
            system.append(path)
    private = [str(PROJECT), str(state.resolve()), os.path.expanduser("~")]
    hidden = [path for path in private if any(_below(path, folder) and path != folder for folder in system)]
    bound = [(path, path) for path in _ETC if os.path.exists(path)]
    for prefix in _prefixes(sys.executable):
        covered = any(_below(prefix, folder) for folder in system)
        if covered and not any(_below(prefix, folder) for folder in hidden):
            continue
        for part in _PARTS_OF_A_PYTHON:
            source = os.path.join(prefix, part)
            if os.path.exists(source):
                bound.append((os.path.realpath(source), source))
    shared = sysconfig.get_config_var("Py_ENABLE_SHARED")
    return View(
        links=links,
        system=system,
        hidden=hidden,
        bound=list(dict.fromkeys(bound)),
        search_path=f"{os.path.dirname(sys.executable)}:/usr/local/bin:/usr/bin:/bin",
        libraries=os.path.join(sys.base_prefix, "lib") if shared else "",
    )
