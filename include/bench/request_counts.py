"""Requests, transactions and gas, of the ocean-lib script and of the DAGs, phase by phase, first and recurring run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from include.bench.measurement import Bench, Table, ratio
from include.bench.phases import BETWEEN, in_order
from include.bench.proxy import MARKS_VARIABLE, RPC, CountingProxy, Phase, counting
from include.bench.surroundings import airflow_settings, local_network, place, run_process
from include.localnet.ethereum import Chain

if TYPE_CHECKING:
    from collections.abc import Callable

    from include.localnet.settings import NetworkSettings

SERVICES = ("provider", "aquarius")
STATUS = "GET /api/services/compute"
LABELS = ("first run", "recurring run")


@dataclass
class Counts:
    """What one side asked and sent.

    :param phases: by run and phase
    :param gas: by run and phase
    """

    phases: dict[tuple[int, str], Phase]
    gas: dict[tuple[int, str], int] = field(default_factory=dict)

    def services(self, run: int, phase: str) -> int | None:
        """Return the requests to Provider and Aquarius, None when there was no such phase."""
        found = self.phases.get((run, phase))
        return None if found is None else found.count(*SERVICES)


def measure(bench: Bench) -> list[Table]:
    """Run both through a counting proxy, on one network, the first run and a recurring one."""
    with local_network(bench.folder) as settings:
        upstreams = {
            RPC: settings.rpc_url,
            "provider": settings.provider_url,
            "aquarius": settings.metadata_cache_url,
        }
        with counting(upstreams) as proxy:
            bench.report("the script with ocean-lib")
            script = _counted(settings, proxy, lambda: _run_script(bench, settings, proxy))
            bench.report("the DAGs")
            dags = _counted(settings, proxy, lambda: _run_dags(bench, settings, proxy))
    return [_calls(script, dags), *(_flow(label, run, script, dags) for run, label in enumerate(LABELS))]


def _counted(settings: NetworkSettings, proxy: CountingProxy, run: Callable[[], Any]) -> Counts:
    run()
    counts = Counts({})
    for phase in proxy.phases:
        name, _, step = phase.name.partition(": ")
        if name.startswith("run "):
            key = (int(name.removeprefix("run ")), step)
            counts.phases.setdefault(key, Phase(step)).requests.extend(phase.requests)
    chain = Chain(settings.rpc_url)
    for key, phase in counts.phases.items():
        receipts = [chain.receipt(sent) for sent in phase.transactions]
        counts.gas[key] = sum(int(receipt["gasUsed"], 16) for receipt in receipts if receipt)
    return counts


def _run_script(bench: Bench, settings: NetworkSettings, proxy: CountingProxy) -> None:
    network = place(settings) | {
        "rpc_url": proxy.url(RPC),
        "provider_url": proxy.url("provider"),
        "metadata_cache_url": proxy.url("aquarius"),
    }
    arguments = {"network": network, "files_url": settings.files_url, "recurring": 1}
    environment = airflow_settings(bench.folder) | {MARKS_VARIABLE: proxy.marks_url}
    run_process(bench.folder, "ocean_py_script", arguments, environment, proxy.watch)


def _run_dags(bench: Bench, settings: NetworkSettings, proxy: CountingProxy) -> None:
    environment = airflow_settings(bench.folder, settings) | {MARKS_VARIABLE: proxy.marks_url}
    for url, name in (
        (settings.rpc_url, RPC),
        (settings.provider_url, "provider"),
        (settings.metadata_cache_url, "aquarius"),
    ):
        environment = {key: value.replace(url, proxy.url(name)) for key, value in environment.items()}
    arguments = {"dags": ["ocean_c2d", "ocean_c2d_recurring"]}
    run_process(bench.folder, "dag_process", arguments, environment, proxy.watch)


def _status(counts: Counts) -> int | None:
    """Return the requests of one look at a job: the last of a wait, since the end of the look before it."""
    requests = [r for r in counts.phases[0, "wait"].requests if r.upstream in SERVICES]
    looks = [at for at, request in enumerate(requests) if request.what == STATUS]
    if not looks:
        return None
    return looks[-1] - (looks[-2] if len(looks) > 1 else -1)


def _calls(script: Counts, dags: Counts) -> Table:
    rows: list[tuple[Any, ...]] = []
    for name, phase in (("publish a dataset", "publish dataset"), ("pay", "pay"), ("start", "start")):
        theirs, ours = script.phases[0, phase], dags.phases[0, phase]
        counts = [side.count(*asked) for asked in (SERVICES, (RPC,)) for side in (theirs, ours)]
        rows.append(
            (name, *counts[:2], ratio(counts[1], counts[0]), *counts[2:], ratio(counts[3], counts[2]))
        )
    theirs_look, our_look = _status(script), _status(dags)
    rows.append(("status, one look", theirs_look, our_look, ratio(our_look, theirs_look), 0, 0, None))
    return Table(
        "Requests for one call, to Provider and Aquarius (services) and to the chain (RPC)",
        (
            "call",
            *(f"{what}: {side}" for what in ("services", "RPC") for side in ("ocean-lib", "ours", "ratio")),
        ),
        rows,
    )


def _flow(label: str, run: int, script: Counts, dags: Counts) -> Table:
    sides = (script, dags)
    rows: list[tuple[Any, ...]] = []
    asked = {
        name for side in sides for (of, name), phase in side.phases.items() if of == run and phase.requests
    }
    listed = {name for side in sides for of, name in side.phases if of == run and name != BETWEEN}
    for phase in in_order(listed | asked):
        rows.append((phase, *(figure for side in sides for figure in _figures(side, run, phase))))
    sums = [sum(row[column] or 0 for row in rows) for column in range(1, 9)]
    rows.append(("all", *sums))
    rows.append(("ours / ocean-lib", *4 * [None], *(ratio(sums[at + 4], sums[at]) for at in range(4))))
    return Table(
        f"The {label}",
        (
            "phase",
            *(
                f"{side}: {what}"
                for side in ("ocean-lib", "ours")
                for what in ("services", "RPC", "tx", "gas")
            ),
        ),
        rows,
    )


def _figures(side: Counts, run: int, phase: str) -> tuple[int | None, ...]:
    found = side.phases.get((run, phase))
    if found is None:
        return (None,) * 4
    return (
        found.count(*SERVICES),
        found.count(RPC),
        len(found.transactions),
        side.gas[run, phase],
    )
