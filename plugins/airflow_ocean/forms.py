"""Fields for trigger forms that several DAGs have, yours perhaps, too: ``params={**NODE_PARAMS, …}``."""

from __future__ import annotations

from airflow.sdk import Param

# What a job can be told where an Ocean Node runs it; a Provider refuses all but the defaults.
NODE_PARAMS = {
    "job_resources": Param(
        None,
        type=["object", "null"],
        title="Resources of an Ocean Node",
        section="Node",
        description_md='Such as `{"cpu": 2, "ram": 4}`; by default the least of each.\n\n'
        "What an environment offers, and for how much, the node's list of environments says.",
    ),
    "queue_wait": Param(
        0,
        type="integer",
        minimum=0,
        title="Longest wait in the queue of an Ocean Node (seconds)",
        section="Node",
        description_md="While others use the resources. 0: the job starts at once, or not at all.",
    ),
    "variables": Param(
        None,
        type=["object", "null"],
        title="Environment variables on an Ocean Node",
        section="Node",
        description_md='Of the algorithm: a JSON object of texts, such as `{"LEVEL": "3"}`.',
    ),
}
