"""Images that stand in for the official ones of Airflow, PostgreSQL and Redis, made from Debian's and PyPI's packages."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.airflow import PROJECT
from tests.support.docker_engine import import_image

if TYPE_CHECKING:
    from docker import APIClient

SOURCES = PROJECT / "tests" / "compose" / "images"
# Python 3.11, which the project and Airflow run on, is this release's.
SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PACKAGES = (
    *("python3", "python3-venv", "ca-certificates", "curl", "dumb-init"),
    *("postgresql", "redis-server"),
)
# Nobody reads these in a container.
_LEFT_OUT = ("doc", "info", "locale", "man")
DEBIAN = "ocean-test/debian:latest"
IMAGES = {name: f"ocean-test/{name}:latest" for name in ("airflow", "postgres", "redis")}
_MADE_OF = "org.airflow-ocean.test.made-of"
_SECONDS_TO_INSTALL = 1800


class BuildError(Exception):
    """An image could not be made; says what was tried and the end of its output."""


def build_official_images(client: APIClient) -> dict[str, str]:
    """Make the images in an engine, out of the package registries, and return their names by what they stand in for.

    An engine that outlives the tests keeps them.
    """
    made_of = _digest(Path(__file__), *sorted(SOURCES.iterdir()))
    kept = {
        tag
        for image in client.images(filters={"label": f"{_MADE_OF}={made_of}"})
        for tag in image["RepoTags"] or []
    }
    if not kept >= set(IMAGES.values()):
        with _debian().open("rb") as archive:
            import_image(client, archive, DEBIAN)
        for name, tag in IMAGES.items():
            _build(client, name, tag, made_of)
        _install_airflow(client, made_of)
    return dict(IMAGES)


def _digest(*files: Path) -> str:
    found = hashlib.sha256()
    for file in files:
        found.update(file.read_bytes())
    return found.hexdigest()[:16]


def _debian() -> Path:
    """Return the archive of a Debian with the packages that all images need: made once, and kept below ``build/``."""
    archive = PROJECT / "build" / "compose" / f"debian-{_digest(Path(__file__))}.tar"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        whole = archive.with_suffix(".part.tar")
        command = ["mmdebstrap", "--quiet", "--variant=apt", f"--include={','.join(PACKAGES)}"]
        command += [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in _LEFT_OUT]
        # A registry that this machine trusts by an authority of its own is one for the images, too.
        command += [f"--customize-hook=upload {CERTIFICATES} {CERTIFICATES}"] if CERTIFICATES.exists() else []
        command += [SUITE, str(whole), MIRROR]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BuildError(
                f"{' '.join(command)}\nended with {done.returncode}: {done.stderr[-4000:]}\n"
                "Do the Debian packages and their mirror answer here?"
            )
        whole.rename(archive)
    return archive


def _build(client: APIClient, target: str, tag: str, made_of: str) -> None:
    printed = ""
    # Airflow's is labelled when its packages are in it, too.
    labels = {} if target == "airflow" else {_MADE_OF: made_of}
    for line in client.build(path=str(SOURCES), target=target, tag=tag, labels=labels, rm=True, decode=True):
        printed += line.get("stream", "")
        if "error" in line:
            raise BuildError(f"building {tag} from {SOURCES}: {line['error']}\n{printed[-4000:]}")


def _install_airflow(client: APIClient, made_of: str) -> None:
    """Install Airflow into its image, out of the cache of this project's uv."""
    uv = PROJECT / ".venv" / "bin" / "uv"
    cache = subprocess.run([uv, "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    home = "/home/airflow/.local"
    install = (
        f"uv pip install --quiet --no-deps --link-mode copy --cache-dir /uv-cache --python {home}/bin/python"
        f" --requirements /lock.txt && chown -R airflow:root {home} && chmod -R g=u {home}"
    )
    binds = [f"{uv}:/usr/local/bin/uv:ro", f"{cache}:/uv-cache", f"{SOURCES / 'airflow.txt'}:/lock.txt:ro"]
    created = client.create_container(
        IMAGES["airflow"],
        ["-c", install],
        user="root",
        entrypoint=["/bin/bash"],
        environment={"SSL_CERT_FILE": str(CERTIFICATES)},
        host_config=client.create_host_config(binds=binds, network_mode="host"),
    )["Id"]
    try:
        client.start(created)
        code = client.wait(created, timeout=_SECONDS_TO_INSTALL)["StatusCode"]
        if code != 0:
            printed = client.logs(created, tail=50).decode(errors="replace")
            raise BuildError(f"{install}\nended with {code}: {printed}")
        changes = ["USER airflow", 'ENTRYPOINT ["/usr/bin/dumb-init", "--", "/entrypoint"]', "CMD []"]
        repository, tag = IMAGES["airflow"].split(":")
        client.commit(created, repository, tag, changes=[*changes, f"LABEL {_MADE_OF}={made_of}"])
    finally:
        client.remove_container(created, force=True, v=True)
