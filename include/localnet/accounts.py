"""The accounts of Ocean's development network (barge), by the names the documentation and the services use."""

from __future__ import annotations

from dataclasses import dataclass, field

MNEMONIC = "taxi music thumb unique chat sand crew more leg another off lamp"


@dataclass(frozen=True)
class Account:
    """An account of the development mnemonic.

    :param name: who uses it
    :param index: last part of its derivation path ``m/44'/60'/0'/0/<index>``
    :param address: checksummed address
    :param private_key: 0x-hex key; published by upstream, hence worthless anywhere but on a local chain
    """

    name: str
    index: int
    address: str
    private_key: str = field(repr=False)


DEPLOYER = Account(
    "deployer",
    0,
    "0xe2DD09d719Da89e5a3D0F2549c7E24566e947260",
    "0xc594c6e5def4bab63ac29eed19a134c130388f74f019bc74b8f4389df2837a58",
)
AQUARIUS = Account(
    "aquarius",
    2,
    "0xA78deb2Fa79463945C247991075E2a0e98Ba7A09",
    "0x5d75837394b078ce97bc289fa8d75e21000573520bfa7784a9d28ccaae602bf8",
)
ALICE = Account(
    "alice",
    3,
    "0x02354A1F160A3fd7ac8b02ee91F04104440B28E7",
    "0x8467415bb2ba7c91084d932276214b11a3dd9bdb2930fefa194b666dd8020b99",
)
CARLOS = Account(
    "carlos",
    5,
    "0xA32C84D2B44C041F3a56afC07a33f8AC5BF1A071",
    "0x732fbb7c355aa8898f4cff92fa7a6a947339eaf026a08a51f171199e35a18ae0",
)
BOB = Account(
    "bob",
    7,
    "0x529043886F21D9bc1AE0feDb751e34265a246e47",
    "0x1d751ded5a32226054cd2e71261039b65afb9ee1c746d055dd699b1150a5befc",
)
PROVIDER = Account(
    "provider",
    8,
    "0xe08A1dAe983BC701D05E492DB80e0144f8f4b909",
    "0xfd5c1ccea015b6d663618850824154a3b3fb2882c46cefb05b9a93fea8c3d215",
)
COMPUTE = Account(
    "compute",
    9,
    "0xbcE5A3468386C64507D30136685A99cFD5603135",
    "0x1263dc73bef43a9da06149c7e598f52025bf4027f1d6c13896b71e81bb9233fb",
)
NODE = Account(
    "node",
    10,
    "0xee59A16d95042e1B252d4598e2e503837a52eCb1",
    "0x946f336bed9c09570f80baaef3444e41d89d75e18248244c152b55150d06a854",
)

ACCOUNTS = (DEPLOYER, AQUARIUS, ALICE, CARLOS, BOB, PROVIDER, COMPUTE, NODE)
