"""Which lines of the project's locks the official Airflow image lacks, printed for pip; run while the image is built.

What the image has already stays as it is: it was released and tested together. ``REPLACED`` names the exceptions.
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

from packaging.requirements import Requirement

# web3 6 imports pkg_resources, which setuptools 81 removed.
REPLACED = {"setuptools"}


def missing(lock: str) -> list[str]:
    """Return the lock's requirements for this Python that are not installed in any version.

    :param lock: the text of a lock file
    """
    found = []
    for line in lock.splitlines():
        text = line.split(" #")[0].strip()
        if not text or text.startswith(("#", "-")):
            continue
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate():
            continue
        if requirement.name in REPLACED or not _installed(requirement.name):
            found.append(f"{requirement.name}{requirement.specifier}")
    return found


def _installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    lines = [line for path in sys.argv[1:] for line in missing(Path(path).read_text())]
    print("\n".join(dict.fromkeys(lines)))
