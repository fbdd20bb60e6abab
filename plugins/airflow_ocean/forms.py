"""Fields for trigger forms that several DAGs have, yours perhaps, too: ``params={**NODE_PARAMS, …}``."""

from __future__ import annotations

from airflow.sdk import Param

# The image that an algorithm is rehearsed and published with; the defaults are those of the Branin example.
CONTAINER_PARAMS = {
    "container_image": Param(
        "oceanprotocol/algo_dockers",
        type="string",
        minLength=1,
        title="Container image",
        section="Algorithm",
        description_md="The image that the algorithm runs in.",
    ),
    "container_tag": Param(
        "python-branin",
        type="string",
        minLength=1,
        title="Image tag",
        section="Algorithm",
        description_md="Which version of the image; what counts is its checksum.",
    ),
    "container_checksum": Param(
        "sha256:8221d20c1c16491d7d56b9657ea09082c0ee4a8ab1a6621fa720da58b09580e4",
        type="string",
        pattern="^sha256:[0-9a-f]{64}$",
        title="Image checksum",
        section="Algorithm",
        description_md="The image's digest in its registry, which “docker buildx imagetools inspect” shows. To rehearse, it may be "
        "the image's id where it was built on the engine.",
    ),
    "container_entrypoint": Param(
        "python $ALGO",
        type="string",
        pattern="[$]ALGO",
        title="Entrypoint",
        section="Algorithm",
        description_md="The command; `$ALGO` stands for the algorithm's file.",
    ),
}
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
