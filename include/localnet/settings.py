"""Where a local network lives: its home folder, its ports, and the URLs that follow from them."""

from __future__ import annotations

import json
import os
import random
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
CHAIN_ID = 8996
NETWORK_NAME = "development"
RUNNERS = ("sandbox", "docker", "auto")

# In the order in which --base-port counts them; the numbers are barge's, the file server's is our own.
DEFAULT_PORTS = {
    "chain": 8545,
    "aquarius": 5000,
    "provider": 8030,
    "operator_service": 8050,
    "files": 8060,
    "node": 8001,
}

# The parts beside the chain, by the generation of services that is wanted.
STACKS = {
    "provider": ("operator_service", "provider", "aquarius", "files"),
    "node": ("node", "files"),
    "both": ("operator_service", "provider", "aquarius", "node", "files"),
}

# Below the ports that Linux and macOS hand out to outgoing connections, so that none of those takes one in between.
_FREE_PORTS = range(20000, 32000)


def default_home() -> Path:
    """Return ``$OCEAN_LOCALNET_HOME`` or the project's ``.localnet`` folder."""
    configured = os.environ.get("OCEAN_LOCALNET_HOME")
    return Path(configured).expanduser().resolve() if configured else PROJECT / ".localnet"


def port_is_free(port: int) -> bool:
    """Say whether nothing listens on a port of the loopback interface."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def choose_ports(base_port: int | None) -> dict[str, int]:
    """Return each part's port.

    :param base_port: None for barge's ports, 0 for free ones, else the first of consecutive ones
    :raises ValueError: when the numbers would leave the range of TCP ports
    """
    if base_port is None:
        return dict(DEFAULT_PORTS)
    if base_port == 0:
        candidates = random.sample(_FREE_PORTS, len(_FREE_PORTS))
        free = (port for port in candidates if port_is_free(port))
        return {name: next(free) for name in DEFAULT_PORTS}
    if not 1024 <= base_port <= 65536 - len(DEFAULT_PORTS):
        raise ValueError(
            f"base port {base_port} is out of range: choose 0 for free ports, or 1024 to "
            f"{65536 - len(DEFAULT_PORTS)}"
        )
    return {name: base_port + offset for offset, name in enumerate(DEFAULT_PORTS)}


@dataclass(frozen=True)
class NetworkSettings:
    """One local network.

    :param home: folder of all its state
    :param ports: TCP port of each part
    :param block_time: seconds between blocks; None mines a block for each transaction at once
    :param stack: a key of :data:`STACKS`
    :param listen: address to listen on; on another one than loopback everybody who reaches it may use the published keys
    :param runner: what runs jobs: ``sandbox``, ``docker`` or ``auto``
    :param pull_images: let Docker fetch the images of jobs
    """

    home: Path
    ports: dict[str, int]
    block_time: int | None = None
    stack: str = "provider"
    listen: str = HOST
    runner: str = "sandbox"
    pull_images: bool = False

    @property
    def services(self) -> tuple[str, ...]:
        """The parts beside the chain."""
        return STACKS[self.stack]

    def url(self, part: str) -> str:
        """Return a part's URL."""
        return f"http://{HOST}:{self.ports[part]}"

    @property
    def rpc_url(self) -> str:
        """The chain's JSON-RPC."""
        return self.url("chain")

    @property
    def metadata_cache_url(self) -> str:
        """Aquarius; Ocean Node where that is the only generation."""
        return self.node_url if self.stack == "node" else self.url("aquarius")

    @property
    def provider_url(self) -> str:
        """The Provider; Ocean Node where that is the only generation."""
        return self.node_url if self.stack == "node" else self.url("provider")

    @property
    def node_url(self) -> str:
        """Ocean Node, which is Provider, metadata cache and compute in one."""
        return self.url("node")

    @property
    def operator_url(self) -> str:
        """The operator-service."""
        return self.url("operator_service")

    @property
    def files_url(self) -> str:
        """The file server."""
        return self.url("files")

    @property
    def address_file(self) -> Path:
        """The contract addresses in ocean-lib's form."""
        return self.home / "address.json"

    @property
    def files_folder(self) -> Path:
        """Whatever is put here the file server serves."""
        return self.home / "files"

    def state_of(self, part: str) -> Path:
        """Return the folder of a part's own state."""
        return self.home / "state" / part

    def save(self) -> None:
        """Write the settings into the home folder, where every later command finds them."""
        self.home.mkdir(parents=True, exist_ok=True)
        content = {key: value for key, value in asdict(self).items() if key != "home"}
        replace_text(self.home / "network.json", json.dumps(content, indent=2))

    @classmethod
    def load(cls, home: Path) -> NetworkSettings | None:
        """Return the settings saved in a home folder, None when there are none.

        :raises ValueError: when the saved file cannot be read as settings
        """
        path = home / "network.json"
        try:
            content = json.loads(path.read_text())
            # A home written before there was a node has no port for it.
            ports = {name: int((DEFAULT_PORTS | content["ports"])[name]) for name in DEFAULT_PORTS}
            block_time = content["block_time"]
            stack = content.get("stack", "provider")
            STACKS[stack]
            listen = str(content.get("listen", HOST))
            # Networks made before there was a choice say nothing of it.
            runner = str(content.get("runner", "sandbox"))
            pull_images = bool(content.get("pull_images", False))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error!r}): delete it, then run `up` again") from error
        return cls(
            home=home,
            ports=ports,
            block_time=block_time,
            stack=stack,
            listen=listen,
            runner=runner,
            pull_images=pull_images,
        )


def replace_text(path: Path, text: str) -> None:
    """Write a file so that readers and crashes see the old content or the new, never a part."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
