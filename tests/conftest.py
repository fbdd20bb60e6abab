"""Fixtures for all tests: a local network, its accounts, and ocean-lib as upstream left it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from include.localnet import accounts, network
from include.localnet.settings import NetworkSettings, choose_ports
from tests import support as _ocean_lib_made_usable  # noqa: F401
from tests.support.workers import Workers, end_at_a_signal, end_if_told

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eth_account.signers.local import LocalAccount

    from tests.support.docker_engine import Engine, Image

# The generation of services that the tests run against: those with the mark ``both_stacks`` may run on ``node``, too.
STACK = os.environ.get("OCEAN_TEST_STACK", "provider")

# Requests to loopback must not be sent to the proxy that a developer's machine may have.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"


def pytest_configure(config: pytest.Config) -> None:
    # By default SIGTERM ends Python without a clean-up, and the network's processes would stay.
    end_at_a_signal(signal.SIGTERM)
    if hasattr(config, "workerinput"):
        # Ctrl-C reaches a worker as well as the process that it works for, which ends it by SIGTERM; where that process
        # is no more, pytest-xdist sends SIGINT.
        end_at_a_signal(signal.SIGTERM, signal.SIGINT)
    elif config.pluginmanager.hasplugin("xdist"):
        config.pluginmanager.register(Workers())
    # A run in the background, or under nohup, has these ignored, and so would all that the tests start and interrupt.
    for interrupt in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(interrupt) is signal.SIG_IGN:
            signal.signal(interrupt, lambda *_: None)


def pytest_runtest_logfinish() -> None:
    end_if_told()


def _developers_network(home: Path) -> NetworkSettings:
    settings = NetworkSettings.load(home)
    if settings is None or not all(part.healthy for part in network.status(settings)):
        pytest.exit(
            f"OCEAN_TEST_LOCALNET_HOME={home}: the network there is not running completely", returncode=2
        )
    return settings


@pytest.fixture(scope="session")
def localnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkSettings]:
    """A whole local network on free ports, or the running one in $OCEAN_TEST_LOCALNET_HOME."""
    configured = os.environ.get("OCEAN_TEST_LOCALNET_HOME")
    if configured:
        yield _developers_network(Path(configured).expanduser().resolve())
        return
    settings = NetworkSettings(tmp_path_factory.mktemp("localnet"), choose_ports(0), stack=STACK)
    try:
        network.up(settings)
        yield settings
    finally:
        network.down(settings.home)


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[Engine]:
    """The Docker engine of ``DOCKER_HOST``, or one of the tests' own."""
    from tests.support.docker_engine import ADVICE, running_engine

    with running_engine() as engine:
        if engine is None:
            pytest.skip(ADVICE)
        yield engine


@pytest.fixture(scope="session")
def docker_images(docker_engine: Engine) -> dict[str, Image]:
    """Images of this machine's Python, by tag: ``plain``, and ``user`` with a user of its own."""
    from tests.support.docker_engine import build_images

    return build_images(docker_engine)


def _wallet(account: accounts.Account) -> LocalAccount:
    from eth_account import Account

    wallet: LocalAccount = Account.from_key(account.private_key)
    return wallet


@pytest.fixture(scope="session")
def alice() -> LocalAccount:
    """The publisher's wallet."""
    return _wallet(accounts.ALICE)


@pytest.fixture(scope="session")
def bob() -> LocalAccount:
    """The consumer's wallet."""
    return _wallet(accounts.BOB)


@pytest.fixture(scope="session")
def upstream_ocean(localnet: NetworkSettings) -> Any:
    """``ocean_lib.ocean.ocean.Ocean``, unmodified, on the local network."""
    from tests.support.upstream import make_ocean

    return make_ocean(localnet)
