"""A whole Compute-to-Data flow on the local network, its job once in Docker and once in the sandbox."""

from __future__ import annotations

import hashlib
import io
import os
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_ocean.c2d.client import OceanClient
from airflow_ocean.c2d.network import Network
from airflow_ocean.c2d.results import decode_result
from airflow_ocean.c2d.specs import AlgorithmContainer, AssetSpec, Pricing
from include.branin.plot import fit_figures
from include.localnet import network
from include.localnet.accounts import ALICE, BOB
from include.localnet.operator_service.runners import LABEL
from include.localnet.settings import NetworkSettings, choose_ports
from tests.support.docker_engine import wait_gone
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.docker_engine import Engine, Image


@pytest.fixture(scope="module")
def docker_network(
    docker_engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NetworkSettings]:
    settings = NetworkSettings(tmp_path_factory.mktemp("docker-localnet"), choose_ports(0), runner="docker")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", docker_engine.url)
        try:
            network.up(settings)
            yield settings
        finally:
            network.down(settings.home)


def published_and_started(settings: NetworkSettings, image: Image, algorithm: str) -> tuple[OceanClient, Any]:
    place = Network(
        settings.rpc_url,
        settings.provider_url,
        settings.metadata_cache_url,
        address_file=str(settings.address_file),
    )
    bob = OceanClient(place, BOB.private_key)

    def publish(spec: AssetSpec) -> str:
        with OceanClient(place, ALICE.private_key) as alice:  # with a journal of its own
            return alice.assets.publish(spec).did

    def file(name: str) -> tuple[dict[str, str]]:
        return ({"type": "url", "url": f"{settings.files_url}/{name}"},)

    free = Pricing.dispenser()
    container = AlgorithmContainer(image.repository, image.tag, image.checksum)
    data = publish(AssetSpec("dataset", "Branin", file("branin.arff"), pricing=free))
    code = publish(AssetSpec("algorithm", "GPR", file(algorithm), container=container, pricing=free))
    with OceanClient(place, ALICE.private_key) as alice:
        alice.assets.allow_algorithm(data, algorithm_did=code)
    order = bob.orders.pay(bob.orders.quote([data], code))
    return bob, bob.jobs.start(order, {"seed": 3})


def described(settings: NetworkSettings) -> str:
    answer = httpx.get(
        f"{settings.provider_url}/api/services/computeEnvironments", params={"chainId": 8996}, trust_env=False
    )
    return answer.json()["8996"][0]["desc"]


@pytest.mark.parametrize("runner", ["docker", "sandbox"])
def test_a_whole_flow(runner: str, docker_images: dict[str, Image], request: pytest.FixtureRequest) -> None:
    settings = request.getfixturevalue("docker_network" if runner == "docker" else "localnet")
    image = docker_images["plain"]
    assert f"jobs run in {'Docker' if runner == 'docker' else 'a sandbox'}" in described(settings)
    bob, job = published_and_started(settings, image, "algorithm.py")
    over = wait_until(lambda: (found := bob.jobs.get(job.id)).is_finished and found, "the job ends")
    texts = {}
    for result in over.results:
        with bob.jobs.open_result(job.id, result.index) as stream:
            texts[result.name] = b"".join(stream.chunks)
    bob.close()
    words = {
        "docker": f"runs in a Docker container of the image {image.name}",
        "sandbox": f"stands for the container image {image.name}",
    }
    assert words[runner] in texts["configure.log"].decode()
    assert over.state == 70
    assert list(texts) == ["result", "algorithm.log", "configure.log", "publish.log"]
    assert fit_figures(decode_result(io.BytesIO(texts["result"])).value).r2 > 0.9


def test_down_leaves_no_container(
    docker_network: NetworkSettings, docker_images: dict[str, Image], docker_engine: Engine
) -> None:
    (docker_network.files_folder / "sleep.py").write_text("import time; time.sleep(600)")
    state: Path = docker_network.state_of("operator_service")
    label = f"{LABEL}={hashlib.sha256(os.fsencode(state.resolve())).hexdigest()[:32]}"
    bob, _ = published_and_started(docker_network, docker_images["plain"], "sleep.py")
    bob.close()
    wait_until(lambda: docker_engine.containers(label), "the job's container is there")
    network.down(docker_network.home)
    wait_gone(docker_engine, label)
