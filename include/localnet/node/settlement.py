"""Claims what consumers have locked for their jobs, in rounds, and gives back what is due to nobody."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from include.localnet.ethereum import RpcError
from include.localnet.node.escrow import Claim, job_hash
from include.localnet.node.javascript import stringify
from include.localnet.node.store import FINISHED

if TYPE_CHECKING:
    from include.localnet.node.configuration import Node
    from include.localnet.node.escrow import Lock
    from include.localnet.node.store import Job

logger = logging.getLogger(__name__)


class Settlement:
    """One round after the other of claiming payments."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def run(self) -> None:
        """Settle every job that is over, then cancel the locks that have expired.

        :raises RpcError: when the chain refuses; what was not settled is in the next round
        """
        jobs = self._node.jobs.to_settle()
        for job in jobs:
            if not job.body["payment"]:
                self._node.jobs.change(job.id, FINISHED)
        locks = {lock.job: lock for lock in self._node.escrow.locks()}
        paid = [job for job in jobs if job.body["payment"]]
        self._settle([(job, locks.pop(int(job_hash(job.id), 16), None)) for job in paid])
        # Upstream, too, gives back what belongs to no job that is to be settled.
        expired = [lock for lock in locks.values() if lock.expiry < time.time()]
        if expired:
            transaction = self._node.escrow.cancel(expired)
            logger.info("%s expired locks were given back (transaction %s)", len(expired), transaction)

    def _settle(self, found: list[tuple[Job, Lock | None]]) -> None:
        due: list[tuple[Job, float]] = []
        for job, lock in found:
            if lock is None:
                # Claimed or given back already, and the node died before it could note that.
                self._finish(job, claimTx="nolock", cancelTx="nolock")
            elif lock.expiry < time.time():
                self._finish(job, cancelTx=self._node.escrow.cancel([lock]))
            else:
                due.append((job, self._seconds(job)))
        if due:
            self._claim(due)

    def _claim(self, due: list[tuple[Job, float]]) -> None:
        environment, escrow = self._node.environment, self._node.escrow
        costs, claims = [], []
        for job, seconds in due:
            payment = job.body["payment"]
            prices = environment.prices(payment["chainId"], payment["token"])
            cost = environment.cost(job.body["resources"], prices, seconds)
            costs.append(cost)
            claims.append(
                Claim(
                    job.id,
                    payment["token"],
                    job.owner,
                    escrow.amount(cost, payment["token"]),
                    stringify(job.body),
                )
            )
        try:
            transaction = escrow.claim(claims)
        except RpcError:
            if len(due) == 1:
                raise
            # One of them stands in the way of all.
            for single in due:
                try:
                    self._claim([single])
                except RpcError as error:
                    logger.warning("The payment of job %s could not be claimed: %s", single[0].id, error)
            return
        for (job, _), cost in zip(due, costs, strict=True):
            self._finish(job, claimTx=transaction, cost=int(cost) if cost == int(cost) else float(cost))

    def _seconds(self, job: Job) -> float:
        """Return for how long a job has to be paid."""
        ran = abs(float(job.body["algoStopTimestamp"]) - float(job.body["algoStartTimestamp"]))
        shortest = float(self._node.environment.fields["minJobDuration"])
        return max(min(ran, job.max_duration), shortest)

    def _finish(self, job: Job, **payment: object) -> None:
        self._node.jobs.change(job.id, FINISHED, payment={**job.body["payment"], **payment})
