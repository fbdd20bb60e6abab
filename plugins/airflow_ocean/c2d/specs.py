"""What a person says about an asset to publish, checked before anything is sent."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from airflow_ocean.c2d.errors import InvalidInputError
from airflow_ocean.c2d.units import MAX_UINT256, ZERO_ADDRESS, parse_address

# A trusted publisher whom nobody can be. Provider takes two empty trust lists as "everybody", Ocean Node as "nobody";
# a list with this entry means nobody to both.
NOBODY = ZERO_ADDRESS
CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}")
# Of each type of file, what must be given; source: Provider file_types and ocean_lib.structures.file_objects.
FILE_FIELDS: dict[str, tuple[str, ...]] = {
    "url": ("url",),
    "arweave": ("transactionId",),
    "ipfs": ("hash",),
    "graphql": ("url", "query"),
    "smartcontract": ("address", "abi"),
}


@dataclass(frozen=True)
class AlgorithmContainer:
    """The container image an algorithm runs in.

    :param checksum: ``sha256:`` and the image's digest
    :param entrypoint: the command, in which ``$ALGO`` stands for the algorithm's path
    """

    image: str
    tag: str
    checksum: str
    entrypoint: str = "python $ALGO"

    def __post_init__(self) -> None:
        for name in ("image", "tag", "entrypoint"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name).strip():
                raise InvalidInputError(f"the container's {name} is empty")
        if not CHECKSUM.fullmatch(str(self.checksum)):
            raise InvalidInputError(
                f"the container's checksum must be sha256: and 64 hex digits, not {self.checksum!r}"
            )
        if "$ALGO" not in self.entrypoint:
            raise InvalidInputError(f"the container's entrypoint must contain $ALGO, not {self.entrypoint!r}")


@dataclass(frozen=True)
class ComputePolicy:
    """What a dataset's publisher allows algorithms to do.

    Where both lists have entries, an algorithm must be on the one and its publisher on the other. Where both are
    empty nobody may compute, unless ``open_to_all``.

    :param trusted_algorithms: entries {did, filesChecksum, containerSectionChecksum}; usually left to ``allow_algorithm``
    :param trusted_publishers: addresses whose algorithms are allowed
    :param open_to_all: every published algorithm may run
    """

    allow_raw_algorithm: bool = False
    allow_network_access: bool = False
    trusted_algorithms: tuple[dict[str, str], ...] = ()
    trusted_publishers: tuple[str, ...] = ()
    open_to_all: bool = False

    def to_dict(self, anybody: tuple[str, ...] = ()) -> dict[str, Any]:
        """Give the ``compute`` section of a service.

        :param anybody: the list of publishers by which its service understands that every algorithm may run
        """
        publishers = [parse_address(address, "trusted publisher") for address in self.trusted_publishers]
        policy = {
            "allowRawAlgorithm": self.allow_raw_algorithm,
            "allowNetworkAccess": self.allow_network_access,
            "publisherTrustedAlgorithms": list(self.trusted_algorithms),
            "publisherTrustedAlgorithmPublishers": publishers,
        }
        if not self.open_to_all:
            return closed(policy)
        narrowed = self.trusted_algorithms or publishers
        return policy if narrowed else {**policy, "publisherTrustedAlgorithmPublishers": list(anybody)}


def closed(policy: dict[str, Any]) -> dict[str, Any]:
    """Return a ``compute`` section in which empty lists allow nobody, and listed ones are not narrowed by that."""
    algorithms = policy.get("publisherTrustedAlgorithms") or []
    publishers = [p for p in policy.get("publisherTrustedAlgorithmPublishers") or [] if p != NOBODY]
    return {
        **policy,
        "publisherTrustedAlgorithms": algorithms,
        "publisherTrustedAlgorithmPublishers": publishers if algorithms or publishers else [NOBODY],
    }


@dataclass(frozen=True)
class Credentials:
    """Who may, and who may not, consume an asset; addresses. Nobody listed means everybody may."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Give the ``credentials`` section of a DDO; Ocean compares addresses in lower case."""

        def entries(addresses: tuple[str, ...], name: str) -> list[dict[str, Any]]:
            values = [parse_address(address, f"credentials.{name}").lower() for address in addresses]
            return [{"type": "address", "values": values}] if values else []

        return {"allow": entries(self.allow, "allow"), "deny": entries(self.deny, "deny")}


@dataclass(frozen=True)
class Pricing:
    """How a consumer gets the asset's datatoken without the publisher's help. Amounts in wei.

    :param kind: ``dispenser`` gives it away, ``fixed_rate`` sells it
    :param rate: price of one datatoken in the base token
    :param base_token: address of the token that pays, the network's OCEAN when None
    :param max_tokens: most datatokens a dispenser gives at once
    :param max_balance: most datatokens a wallet may hold to be given more
    """

    kind: Literal["dispenser", "fixed_rate"]
    rate: int = 0
    base_token: str | None = None
    max_tokens: int = MAX_UINT256
    max_balance: int = MAX_UINT256

    def __post_init__(self) -> None:
        if self.kind not in ("dispenser", "fixed_rate"):
            raise InvalidInputError(f"pricing must be 'dispenser' or 'fixed_rate', not {self.kind!r}")
        if self.kind == "fixed_rate" and not 0 < self.rate <= MAX_UINT256:
            raise InvalidInputError(f"a fixed rate must be above 0 wei, not {self.rate}")

    @classmethod
    def dispenser(cls, max_tokens: int = MAX_UINT256, max_balance: int = MAX_UINT256) -> Pricing:
        """Offer the datatoken for free."""
        return cls("dispenser", max_tokens=max_tokens, max_balance=max_balance)

    @classmethod
    def fixed_rate(cls, rate: int, base_token: str | None = None) -> Pricing:
        """Sell the datatoken for ``rate`` wei of a base token."""
        return cls("fixed_rate", rate=rate, base_token=base_token)


@dataclass(frozen=True)
class AssetSpec:
    """An asset to publish.

    :param files: as Ocean describes them, e.g. ``{"type": "url", "url": "https://…"}``
    :param container: of an algorithm
    :param compute: of a dataset; what algorithms may do with it
    :param services: ``compute`` alone keeps the raw data from being downloaded; ``access`` lets whoever holds the
        datatoken download it
    :param template: datatoken template; 2 gets and orders a datatoken in one transaction
    :param timeout: seconds an order stays valid, 0 for ever
    """

    kind: Literal["dataset", "algorithm"]
    name: str
    files: tuple[dict[str, Any], ...]
    description: str = ""
    author: str = ""
    license: str = "CC0: PublicDomain"
    tags: tuple[str, ...] = ()
    additional_information: dict[str, Any] = field(default_factory=dict)
    container: AlgorithmContainer | None = None
    compute: ComputePolicy = field(default_factory=ComputePolicy)
    services: tuple[Literal["compute", "access"], ...] = ()
    credentials: Credentials = field(default_factory=Credentials)
    template: int = 1
    pricing: Pricing | None = None
    timeout: int = 86_400
    consumer_parameters: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ("dataset", "algorithm"):
            raise InvalidInputError(f"kind must be 'dataset' or 'algorithm', not {self.kind!r}")
        if not isinstance(self.name, str) or not self.name.strip():
            raise InvalidInputError("the asset's name is empty")
        if self.kind == "algorithm" and self.container is None:
            raise InvalidInputError(
                f"algorithm {self.name!r} needs a container (image, tag, checksum, entrypoint)"
            )
        if self.template not in (1, 2):
            raise InvalidInputError(f"template must be 1 or 2, not {self.template!r}")
        if isinstance(self.timeout, bool) or not isinstance(self.timeout, int) or self.timeout < 0:
            raise InvalidInputError(
                f"timeout must be 0 (for ever) or a number of seconds, not {self.timeout!r}"
            )
        object.__setattr__(self, "files", tuple(self.files))
        if not self.files:
            raise InvalidInputError(f"asset {self.name!r} has no files")
        for file in self.files:
            check_file(file)
        # A dataset is compute-only unless asked otherwise; an algorithm is something a job fetches.
        services = tuple(self.services) or (("compute",) if self.kind == "dataset" else ("access",))
        if not set(services) <= {"compute", "access"} or len(set(services)) != len(services):
            raise InvalidInputError(
                f"services must be of 'compute' and 'access', each once, not {services!r}"
            )
        object.__setattr__(self, "services", services)


def check_file(file: Any) -> None:
    """Check one file object.

    :raises InvalidInputError: naming what is missing; never the URL, which may hold a secret
    """
    kind = file.get("type") if isinstance(file, dict) else None
    if kind not in FILE_FIELDS:
        raise InvalidInputError(f"a file needs a type, one of {', '.join(FILE_FIELDS)}, not {kind!r}")
    for name in FILE_FIELDS[kind]:
        if not file.get(name):
            raise InvalidInputError(f"a file of type {kind} needs {name}")
    if kind in ("url", "graphql") and not str(file["url"]).startswith(("http://", "https://")):
        raise InvalidInputError(f"a file of type {kind} needs a url that begins with http:// or https://")
