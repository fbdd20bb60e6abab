"""Fields for trigger forms that several DAGs have, yours perhaps, too: ``params={**node_params(), …}``.

They are made anew for each DAG, as a run writes its values into the fields of its DAG.
"""

from __future__ import annotations

from airflow.sdk import Param

# Patterns for what the tasks refuse, so that the form does before anything is spent. Blanks are no text, nor is what a
# template makes of nothing.
TEXT = r"^(?!\s*(None|null)?\s*$)"
URL = r"^https?://[^\s/?#]+\S*$"
# Whole tokens: any amount, and at least one.
AMOUNT = "^[0-9]{1,18}([.][0-9]{1,18})?$"
AT_LEAST_ONE = "^0*[1-9][0-9]{0,17}([.][0-9]{1,18})?$"
# Ocean's exchange takes no rate below 0.00000001.
PRICE = "^(?=0*[1-9]|0*[.]0{0,7}[1-9])[0-9]{1,18}([.][0-9]{1,18})?$"
_REPOSITORY = "[a-z0-9]+([._-]+[a-z0-9]+)*"


def container_params() -> dict[str, Param]:
    """Return what the image is that an algorithm is rehearsed and published with, by default the Branin example's."""
    return {
        "container_image": Param(
            "oceanprotocol/algo_dockers",
            type="string",
            pattern=rf"{TEXT}([A-Za-z0-9.-]+(:[0-9]+)?/)?{_REPOSITORY}(/{_REPOSITORY})*$",
            title="Container image",
            section="Algorithm",
            description_md="The image that the algorithm runs in, without its tag.",
        ),
        "container_tag": Param(
            "python-branin",
            type="string",
            pattern=rf"{TEXT}[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}$",
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


def node_params() -> dict[str, Param]:
    """Return what a job can be told where an Ocean Node runs it; a Provider refuses all but the defaults."""
    return {
        "job_resources": Param(
            None,
            type=["object", "null"],
            additionalProperties={"type": "number", "exclusiveMinimum": 0},
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
            propertyNames={"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
            additionalProperties={"type": "string"},
            title="Environment variables on an Ocean Node",
            section="Node",
            description_md='Of the algorithm: a JSON object of texts, such as `{"LEVEL": "3"}`.',
        ),
    }


def plot_params() -> dict[str, Param]:
    """Return whether the result is to be drawn.

    One of another form than the Branin example's needs a DAG with a function of your own for that, or no picture.
    """
    return {
        "plot": Param(
            True,
            type="boolean",
            title="Plot",
            section="Result",
            description_md="Draw the result as the Branin example draws its own, 15 × 15 numbers. With an algorithm whose results "
            "are of another form switch it *off*: they are fetched all the same.",
        ),
    }
