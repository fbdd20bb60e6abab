"""
### What is in the escrow, and what a job has cost in the end.

An Ocean Node is paid through the escrow. Before a job starts, the most that it can cost is deposited and locked; some time
after the job, usually within an hour, the node claims what it has cost, and the rest is free again.

- `settle` waits until a job's payment is claimed, or can't be claimed any more, and says what it has cost. Without a job there
  is nothing to wait for.
- `withdraw` says what the wallet has in the escrow, and what of it is locked until when. What nobody claimed in time it gets
  back, also when the node is gone. It takes out what is free when you ask for that. Leave it there if you compute again soon:
  what is deposited already saves the next payment two transactions.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import DAG, Param

from airflow_ocean.operators.escrow import OceanSettlementSensor, OceanWithdrawFromEscrowOperator

PARAMS = {
    "connection": Param(
        "ocean_bob",
        type="string",
        minLength=1,
        title="Connection",
        section="Wallet",
        description_md="The connection of the wallet that paid.",
    ),
    "job_id": Param(
        None,
        type=["string", "null"],
        title="Job",
        section="Settlement",
        description_md="Wait until the payment of this job is claimed. Its id is what the task that started it returned.",
    ),
    "provider_url": Param(
        None,
        type=["string", "null"],
        pattern="^(https?://.*)?$",
        title="Node",
        section="Settlement",
        description_md="Where the job ran, if not at the connection's node.",
    ),
    "manifest": Param(
        None,
        type=["string", "null"],
        title="Manifest",
        section="Settlement",
        description_md="URI of the manifest of the job's results, in which the cost is to be brought up to date.",
    ),
    "amount": Param(
        "0",
        type="string",
        pattern="^(all|[0-9]+([.][0-9]{1,18})?)$",
        examples=["0", "all"],
        title="Take out",
        section="Withdrawal",
        description_md="In whole tokens; `all`, or `0` to take nothing.",
    ),
    "token": Param(
        None,
        type=["string", "null"],
        pattern="^(0x[0-9a-fA-F]{40})?$",
        title="Token",
        section="Withdrawal",
        description_md="The token's address. Empty: each that the wallet has in the escrow.",
    ),
    "escrow": Param(
        None,
        type=["string", "null"],
        pattern="^(0x[0-9a-fA-F]{40})?$",
        title="Contract",
        section="Withdrawal",
        description_md="The escrow's address, as the task that paid tells in its XCom *order*. Empty: each that is known for "
        "the network.",
    ),
    "cancel_expired": Param(
        True,
        type="boolean",
        title="Get back what has expired",
        section="Withdrawal",
        description_md="What a node has locked and not claimed in time is the wallet's again after a transaction.",
    ),
}

with DAG(
    dag_id="ocean_escrow",
    description="Wait for a job's final cost, and take what is free out of the escrow",
    doc_md=__doc__,
    schedule=None,
    start_date=pendulum.datetime(2025, 1, 1, tz="UTC"),
    catchup=False,
    tags=["ocean", "compute-to-data"],
    default_args={"retries": 3, "ocean_conn_id": "{{ params.connection }}"},
    params=PARAMS,
) as dag:
    settle = OceanSettlementSensor(
        task_id="settle",
        job_id="{{ params.job_id }}",
        provider_url="{{ params.provider_url }}",
        manifest="{{ params.manifest }}",
    )
    withdraw = OceanWithdrawFromEscrowOperator(
        task_id="withdraw",
        trigger_rule="none_failed",
        token="{{ params.token }}",
        amount="{{ params.amount }}",
        escrow="{{ params.escrow }}",
        cancel_expired="{{ params.cancel_expired }}",
    )

    settle >> withdraw
