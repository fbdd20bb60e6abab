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


class BuildError(Exception):
    """An image could not be made; says what was tried and the end of its output."""


def build_official_images(client: APIClient) -> dict[str, str]:
    """Make the images in an engine, which need the package registries, and return their names by what they stand in for."""
    _import_debian(client)
    for name, tag in IMAGES.items():
        _build(client, name, tag)
    _install_airflow(client)
    return dict(IMAGES)


def _import_debian(client: APIClient) -> None:
    """Import a Debian with the packages that all the images need: made once, and kept below ``build/``."""
    made_of = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    archive = PROJECT / "build" / "compose" / f"debian-{made_of}.tar"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        whole = archive.with_suffix(".part.tar")
        command = ["mmdebstrap", "--quiet", "--variant=apt", f"--include={','.join(PACKAGES)}"]
        command += [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in _LEFT_OUT]
        # A registry behind this machine's own authority is one for the images, too.
        command += [f"--customize-hook=upload {CERTIFICATES} {CERTIFICATES}"] if CERTIFICATES.exists() else []
        _run([*command, SUITE, str(whole), MIRROR])
        whole.rename(archive)

    with archive.open("rb") as file:
        import_image(client, file, DEBIAN)


def _build(client: APIClient, target: str, tag: str) -> None:
    printed = ""
    for line in client.build(path=str(SOURCES), target=target, tag=tag, rm=True, forcerm=True, decode=True):
        printed += line.get("stream", "")
        if "error" in line:
            raise BuildError(f"building {tag} from {SOURCES}: {line['error']}\n{printed[-4000:]}")


def _install_airflow(client: APIClient) -> None:
    """Install Airflow into its image, out of the cache of this project's uv."""
    uv = PROJECT / ".venv" / "bin" / "uv"
    cache = subprocess.run([uv, "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    lock = SOURCES / "airflow.txt"
    home = "/home/airflow/.local"
    install = (
        f"uv pip install --quiet --no-deps --link-mode copy --cache-dir /uv-cache --python {home}/bin/python"
        f" --requirements /lock.txt && chown -R airflow:root {home} && chmod -R g=u {home}"
    )
    binds = [f"{uv}:/usr/local/bin/uv:ro", f"{cache}:/uv-cache", f"{lock}:/lock.txt:ro"]
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
        code = client.wait(created, timeout=1200)["StatusCode"]
        if code != 0:
            raise BuildError(f"{install}\nended with {code}: {client.logs(created, tail=50).decode()}")
        repository, tag = IMAGES["airflow"].split(":")
        entrypoint = 'ENTRYPOINT ["/usr/bin/dumb-init", "--", "/entrypoint"]'
        client.commit(created, repository, tag, changes=["USER airflow", entrypoint, "CMD []"])
    finally:
        client.remove_container(created, force=True, v=True)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{' '.join(command)}\nended with {done.returncode}: {done.stderr[-4000:]}")
