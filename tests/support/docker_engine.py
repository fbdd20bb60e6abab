"""A Docker engine for tests, and images for it made of what this machine has: nothing is pulled.

An engine that ``DOCKER_HOST`` names is used as it is. Otherwise root starts a ``dockerd`` of the tests' own, which needs no
firewall rules and no bridge, as none of the containers has a network. Without ``dockerd`` the tests skip.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from docker import APIClient

ADVICE = "these tests need a Docker engine: install docker.io and run them as root, or set DOCKER_HOST to an engine"
REPOSITORY = "ocean-test/python"
_TAGS = ("plain", "user")
_MADE_OF = "org.airflow-ocean.test.made-of"
_PREFIX = "/opt/python"
_PACKAGES = (
    *(
        "numpy",
        "numpy.libs",
        "scipy",
        "scipy.libs",
        "sklearn",
        "scikit_learn.libs",
        "joblib",
        "cloudpickle",
        "narwhals",
        "threadpoolctl.py",
    ),
    *("matplotlib", "mpl_toolkits", "contourpy", "cycler", "dateutil", "six.py", "kiwisolver", "packaging"),
    *("pyparsing", "PIL", "pillow.libs", "fontTools"),
)
_PROGRAMS = ("sh", "cat", "id", "ls", "rm", "sleep", "touch", "true")
# Of no use in a container, and a third of its size.
_LEFT_OUT = re.compile(
    r"(^|/)(__pycache__|tests?|idlelib|tkinter|ensurepip|turtledemo|config-\d[^/]*)(/|$)|\.(a|pyi|pyc)$"
)


@dataclass(frozen=True)
class Engine:
    """An engine that answers.

    :param url: as in ``DOCKER_HOST``
    """

    url: str

    def client(self) -> APIClient:
        """Return a client of one's own."""
        from docker import APIClient

        return APIClient(base_url=self.url, version="auto", timeout=120)

    def containers(self, *labels: str) -> list[str]:
        """Return the ids of all containers with these labels, running or not."""
        return [found["Id"] for found in self.client().containers(all=True, filters={"label": list(labels)})]


@dataclass(frozen=True)
class Image:
    """An image of an engine.

    :param checksum: its id, ``sha256:`` and 64 digits
    """

    repository: str
    tag: str
    checksum: str

    @property
    def name(self) -> str:
        """Repository and tag."""
        return f"{self.repository}:{self.tag}"

    def container(self, entrypoint: str = "python $ALGO") -> dict[str, str]:
        """Return it as the container section of an algorithm."""
        return {
            "image": self.repository,
            "tag": self.tag,
            "checksum": self.checksum,
            "entrypoint": entrypoint,
        }


def _answers(url: str) -> bool:
    from docker import APIClient
    from docker.errors import DockerException

    try:
        return bool(APIClient(base_url=url, version="auto", timeout=10).ping())
    except (DockerException, OSError):
        return False


@contextlib.contextmanager
def running_engine() -> Iterator[Engine | None]:
    """Yield the engine to use, None when there is none and none can be started."""
    configured = os.environ.get("DOCKER_HOST")
    if configured:
        yield Engine(configured) if _answers(configured) else None
    elif os.geteuid() == 0 and shutil.which("dockerd"):
        with _own_engine() as engine:
            yield engine
    else:
        yield None


@contextlib.contextmanager
def _own_engine() -> Iterator[Engine]:
    # The path of a socket must be short, so not below pytest's own temporary folder.
    home = Path(tempfile.mkdtemp(prefix="dockerd-"))
    url = f"unix://{home}/docker.sock"
    command = ["dockerd", "--host", url, "--data-root", str(home / "data"), "--exec-root", str(home / "exec")]
    command += ["--pidfile", str(home / "pid"), "--iptables=false", "--ip6tables=false", "--bridge=none"]
    with (home / "log").open("wb") as log:
        daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_until(lambda: _answers(url) or daemon.poll() is not None, "dockerd answers or ends", timeout=60)
        if daemon.poll() is not None:
            raise RuntimeError(f"dockerd ended: {(home / 'log').read_text(errors='replace')[-2000:]}")
        yield Engine(url)
    finally:
        daemon.terminate()
        try:
            daemon.wait(60)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            if (mount := line.split()[1]).startswith(f"{home}/"):
                subprocess.run(["umount", "--lazy", mount], check=False)
        shutil.rmtree(home, ignore_errors=True)


def build_images(engine: Engine) -> dict[str, Image]:
    """Import this machine's Python, with the packages that an algorithm needs, as images by tag.

    ``plain`` names no user; ``user`` is the same with a user of its own. An engine that outlives the tests keeps them.
    """
    client = engine.client()
    source = hashlib.sha256(sys.version.encode())
    for path in (Path(__file__), *(Path(package) for package in sorted(site_packages().glob("*.dist-info")))):
        source.update(path.read_bytes() if path.is_file() else path.name.encode())
    made_of = source.hexdigest()[:32]
    kept = client.images(REPOSITORY, filters={"label": f"{_MADE_OF}={made_of}"})
    if len(kept) < len(_TAGS):
        _build(client, made_of)
    return {tag: Image(REPOSITORY, tag, client.inspect_image(f"{REPOSITORY}:{tag}")["Id"]) for tag in _TAGS}


def site_packages() -> Path:
    """Return the folder of the installed packages."""
    return Path(numpy.__file__).parents[1]


def _build(client: APIClient, made_of: str) -> None:
    with tempfile.TemporaryFile() as archive:
        with tarfile.open(fileobj=archive, mode="w") as root:
            _write_root(root)
        archive.seek(0)
        changes = [f"ENV PATH={_PREFIX}/bin:/bin", 'CMD ["sh"]', f"LABEL {_MADE_OF}={made_of}"]
        import_image(client, archive, f"{REPOSITORY}:plain", changes)
    created = client.create_container(f"{REPOSITORY}:plain", "true")["Id"]
    try:
        client.commit(created, REPOSITORY, "user", changes="USER 4321:4321")
    finally:
        client.remove_container(created, force=True)


def import_image(client: APIClient, archive: IO[bytes], name: str, changes: Iterable[str] = ()) -> None:
    """Make an image of a tar archive.

    :param archive: the root of its file system, open for reading
    :param name: repository and tag
    :param changes: instructions of a Dockerfile that set its configuration
    """
    repository, tag = name.split(":")
    parameters = {"fromSrc": "-", "repo": repository, "tag": tag, "changes": list(changes)}
    address = client._url("/images/create")
    answer = client.post(address, data=archive, params=parameters, timeout=600)
    answer.raise_for_status()


def _write_root(root: tarfile.TarFile) -> None:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    libraries: set[str] = set()
    for folder, mode in (("data", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("bin", 0o755)):
        entry = tarfile.TarInfo(folder)
        entry.type, entry.mode = tarfile.DIRTYPE, mode
        root.addfile(entry)
    for program in _PROGRAMS:
        path = shutil.which(program)
        assert path is not None
        root.add(os.path.realpath(path), f"bin/{program}")
        libraries |= _libraries_of(path)
    interpreter = os.path.realpath(sys.executable)
    root.add(interpreter, f"{_PREFIX[1:]}/bin/python")
    libraries |= _libraries_of(interpreter)
    libraries |= _add_tree(root, Path(sysconfig.get_path("stdlib")), f"{_PREFIX[1:]}/lib/{version}")
    packages = site_packages()
    for name in _PACKAGES:
        if (packages / name).exists():
            target = f"{_PREFIX[1:]}/lib/{version}/site-packages/{name}"
            libraries |= _add_tree(root, packages / name, target)
    for library in sorted(libraries):
        root.add(os.path.realpath(library), library.lstrip("/"))


def _add_tree(root: tarfile.TarFile, source: Path, target: str) -> set[str]:
    """Add a tree, and return the libraries that its modules need of the system."""
    modules: list[str] = []

    def chosen(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        inside = entry.name.removeprefix(target)
        if _LEFT_OUT.search(inside) or inside.startswith("/site-packages"):
            return None
        if re.search(r"\.so(\.\d+)*$", inside):
            modules.append(str(source) + inside)
        entry.uid = entry.gid = 0
        return entry

    root.add(source, target, filter=chosen)
    return _libraries_of(*modules)


def _libraries_of(*files: str) -> set[str]:
    """Return the system's libraries that the dynamic linker loads for some files."""
    if not files:
        return set()
    shown = subprocess.run(["ldd", *files], capture_output=True, text=True, check=False).stdout
    found = {path for path in re.findall(r"(?:=> |^\t)(/[^ ]+) \(0x", shown, re.MULTILINE)}
    # Those that packages bring themselves are found beside them.
    return {path for path in found if "site-packages" not in path}


def wait_gone(engine: Engine, *labels: str) -> None:
    """Wait until no container with these labels is left."""
    wait_until(lambda: not engine.containers(*labels), f"no container {labels} is left")
