"""The network that faulty tasks run on: the proxy in front of it, wallets of their own, assets, and exact counts."""

from __future__ import annotations

import functools
import json
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
from eth_account import Account

from airflow_ocean.c2d.assets import AssetSpec, ComputePolicy, Pricing, PublishedAsset
from airflow_ocean.c2d.client import OceanClient
from airflow_ocean.c2d.network import Network
from airflow_ocean.c2d.specs import AlgorithmContainer
from include.localnet.accounts import ALICE, DEPLOYER
from include.localnet.ethereum import Chain, encode_call
from tests.support.fault_proxy import FaultProxy
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from include.localnet.ethereum import Event
    from include.localnet.settings import NetworkSettings

ETHER = 10**18
CONTAINER = AlgorithmContainer("oceanprotocol/algo_dockers", "python-branin", "sha256:" + "8" * 64)
# Ends at once, with two outputs: a small one, and one that takes many packets on its way home.
ALGORITHM = """
import os, pathlib, time
time.sleep(float(os.environ.get("PAUSE", "0")))
outputs = pathlib.Path("/data/outputs")
(outputs / "result").write_text("1,2\\n3,4\\n")
(outputs / "large").write_bytes(bytes(range(256)) * 8192)
print("done")
"""
SLOW_ALGORITHM = ALGORITHM.replace('"0"', '"1.5"')
LASTING_ALGORITHM = ALGORITHM.replace('"0"', '"900"')
FAILING_ALGORITHM = 'raise SystemExit("this algorithm gives up on purpose")\n'
ALGORITHMS = {
    "quick": ALGORITHM,
    "slow": SLOW_ALGORITHM,
    "lasting": LASTING_ALGORITHM,
    "failing": FAILING_ALGORITHM,
}


@dataclass(frozen=True)
class Wallet:
    """A fresh account with exactly known money."""

    address: str
    private_key: str


@dataclass(frozen=True)
class JobsOver:
    """Jobs that are over and may be looked at by many cases.

    :param good: id of one with results
    :param bad: id of one whose algorithm failed
    """

    wallet: Wallet
    good: str
    bad: str


class World:
    """A local network behind a fault proxy.

    :param localnet: the network
    """

    def __init__(self, localnet: NetworkSettings) -> None:
        self.localnet = localnet
        self.chain = Chain(localnet.rpc_url)
        self.proxy = FaultProxy(
            {
                "chain": localnet.rpc_url,
                "provider": localnet.provider_url,
                "aquarius": localnet.metadata_cache_url,
            }
        )
        # Assets name the proxied Provider: tasks take its URL from there.
        self.network = Network(
            localnet.rpc_url,
            self.proxy.url("provider"),
            localnet.metadata_cache_url,
            address_file=str(localnet.address_file),
        )
        addresses = json.loads(localnet.address_file.read_text())["development"]
        self.ocean: str = addresses["Ocean"]
        self.factory: str = addresses["ERC721Factory"]
        self.exchange: str = addresses["FixedPrice"]
        self.escrow: str = addresses["Escrow"]
        self._http = httpx.Client(trust_env=False, timeout=30)
        localnet.files_folder.mkdir(parents=True, exist_ok=True)
        for name, text in ALGORITHMS.items():
            (localnet.files_folder / f"{name}.py").write_text(text)
        self._publish_assets()
        environments = self.client(ALICE.private_key).orders.environments()
        self.paid_environment = next(found for found in environments if not found.is_free)

    def close(self) -> None:
        """Stop the proxy."""
        self.proxy.close()

    def _publish_assets(self) -> None:
        """Publish, at once, one asset for each way of paying."""
        file = {"type": "url", "url": f"{self.localnet.files_url}/branin.arff"}
        trusting = ComputePolicy(open_to_all=True)
        sold, given = Pricing.fixed_rate(3 * ETHER), Pricing.dispenser()

        def dataset(name: str, template: int, pricing: Pricing | None) -> AssetSpec:
            return AssetSpec("dataset", name, (file,), template=template, pricing=pricing, compute=trusting)

        def algorithm(name: str, pricing: Pricing | None) -> AssetSpec:
            own = {"type": "url", "url": f"{self.localnet.files_url}/{name}.py"}
            return AssetSpec("algorithm", name, (own,), container=CONTAINER, pricing=pricing)

        specs = {
            "held": dataset("held", 1, None),
            "dispensed": dataset("dispensed", 1, given),
            "sold": dataset("sold", 1, sold),
            "dispensed 2": dataset("dispensed 2", 2, given),
            "sold 2": dataset("sold 2", 2, sold),
            "closed": AssetSpec("dataset", "closed", (file,)),
            "changed": AssetSpec("dataset", "changed", (file,)),
            "quick": algorithm("quick", None),
            "quick dispensed": algorithm("quick", given),
            "slow": algorithm("slow", given),
            "lasting": algorithm("lasting", given),
            "failing": algorithm("failing", given),
        }

        def publish(spec: AssetSpec) -> PublishedAsset:
            with self.client(ALICE.private_key) as client:
                return client.assets.publish(spec)

        # Also makes the connections' modules load before threads need them.
        self.client(ALICE.private_key).check()
        with ThreadPoolExecutor(len(specs)) as pool:
            self.assets = dict(zip(specs, pool.map(publish, specs.values()), strict=True))

    # ------------------------------------------------------------------ wallets and connections

    def wallet(self, ocean: int = 0, **datatokens: int) -> Wallet:
        """Make a wallet with 10 of the chain's coin.

        :param ocean: wei of OCEAN it gets
        :param datatokens: name of an asset → wei of its datatoken that it gets
        """
        account = Account.from_key(secrets.token_bytes(32))
        wallet = Wallet(account.address, "0x" + bytes(account.key).hex())
        self.chain.request("anvil_setBalance", wallet.address, hex(10 * ETHER))
        if ocean:
            self.send(DEPLOYER.address, self.ocean, "OceanToken", "mint", wallet.address, ocean)
        for name, amount in datatokens.items():
            token = self.assets[name].datatoken_address
            self.send(ALICE.address, token, "ERC20Template", "mint", wallet.address, amount)
        return wallet

    def send(self, sender: str, to: str, contract: str, function: str, *arguments: Any) -> None:
        """Send a transaction of one of the node's own accounts; the chain mines it at once."""
        call = {"from": sender, "to": to, "data": encode_call(contract, function, *arguments)}
        transaction = self.chain.request("eth_sendTransaction", call)
        receipt = wait_until(lambda: self.chain.receipt(transaction), f"{function} is mined")
        assert receipt["status"] == "0x1", f"{function} reverted"

    def client(self, private_key: str) -> OceanClient:
        """Return a client past the faults."""
        return OceanClient(self.network, private_key)

    def connection(self, private_key: str, **extra: Any) -> str:
        """Return an Airflow connection through the proxy, in Airflow's JSON form."""
        fields = {
            "provider_url": self.proxy.url("provider"),
            "metadata_cache_url": self.proxy.url("aquarius"),
            "address_file": str(self.localnet.address_file),
            **extra,
        }
        return json.dumps(
            {"conn_type": "ocean", "host": self.proxy.url("chain"), "password": private_key, "extra": fields}
        )

    # ------------------------------------------------------------------ counting

    def nonce(self, address: str) -> int:
        """Return how many transactions an account has sent, mined or not."""
        return int(self.chain.request("eth_getTransactionCount", address, "pending"), 16)

    def balance(self, token: str, owner: str) -> int:
        """Return how much of a token an address holds."""
        return int(self.chain.call(token, "ERC20Template", "balanceOf", owner))

    def allowance(self, token: str, owner: str, spender: str) -> int:
        """Return how much of a token another may still take."""
        return int(self.chain.call(token, "ERC20Template", "allowance", owner, spender))

    def escrow_funds(self, owner: str) -> tuple[int, int]:
        """Return how much OCEAN of an address the escrow has available, and how much locked."""
        available, locked = self.chain.call(self.escrow, "Escrow", "getUserFunds", owner, self.ocean)
        return int(available), int(locked)

    def coins(self, address: str) -> int:
        """Return how much of the chain's coin an address holds."""
        return int(self.chain.request("eth_getBalance", address, "latest"), 16)

    def events(self, contract: str, event: str, since: int, address: str) -> list[Event]:
        """Return a contract's events after a block."""
        return self.chain.logs(contract, [event], since + 1, self.chain.block_number(), address)

    def received(self, token: str, owner: str, since: int) -> list[int]:
        """Return every amount of a token that came to an address after a block."""
        transfers = self.events("ERC20Template", "Transfer", since, token)
        return [event.arguments["value"] for event in transfers if event.arguments["to"] == owner]

    def bought(self, wallet: Wallet, since: int) -> list[int]:
        """Return what each purchase of a wallet cost after a block, wei of OCEAN; template 2 buys in the wallet's place."""
        found = []
        for event in self.events("FixedRateExchange", "Swapped", since, self.exchange):
            receipt = self.chain.receipt(event.transaction)
            if receipt and receipt["from"].lower() == wallet.address.lower():
                found.append(event.arguments["baseTokenSwappedAmount"])
        return found

    def jobs(self, address: str) -> list[dict[str, Any]]:
        """Return every job of a wallet."""
        url = f"{self.localnet.provider_url}/api/services/compute"
        found: list[dict[str, Any]] = (
            self._http.get(url, params={"consumerAddress": address}).raise_for_status().json()
        )
        return found

    def ddo(self, did: str) -> dict[str, Any]:
        """Return an asset as it is indexed."""
        url = f"{self.localnet.metadata_cache_url}/api/aquarius/assets/ddo/{did}"
        found: dict[str, Any] = self._http.get(url).raise_for_status().json()
        if "indexedMetadata" in found:  # an Ocean Node's form
            found["event"] = {"tx": found["indexedMetadata"]["event"]["txid"]}
        return found

    @functools.cached_property
    def jobs_over(self) -> JobsOver:
        """One job that went well and one that did not."""
        wallet = self.wallet()
        return JobsOver(
            wallet, self._finished_job(wallet, "quick dispensed"), self._finished_job(wallet, "failing")
        )

    def _finished_job(self, wallet: Wallet, algorithm: str) -> str:
        with self.client(wallet.private_key) as client:
            quote = client.orders.quote([self.assets["dispensed 2"].did], self.assets[algorithm].did)
            job = client.jobs.start(client.orders.pay(quote))
            wait_until(lambda: client.jobs.get(job.id).is_finished, f"job {job.id} ends")
            return job.id
