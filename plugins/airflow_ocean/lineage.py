"""What a task read and wrote, told to OpenLineage when its Airflow provider is installed and configured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.generated.base import Dataset

# Assets are datasets of this namespace, named by their DID, which is unique over all chains.
NAMESPACE = "ocean"


@dataclass(frozen=True)
class Lineage:
    """The lineage of a task that has succeeded.

    :param inputs: DIDs of assets and URIs of artifacts that it read
    :param outputs: DIDs of assets and URIs of artifacts that it made or changed
    :param job_id: the compute job it is about
    :param cost: what it paid, as :class:`~airflow_ocean.operators.compute.OceanPayForComputeOperator` pushes it
    """

    inputs: Sequence[str] = ()
    outputs: Sequence[str] = ()
    job_id: str | None = None
    cost: dict[str, Any] = field(default_factory=dict)

    def to_openlineage(self) -> OperatorLineage[Any, Any]:
        """Return it as the OpenLineage provider takes it; only that provider calls this."""
        from airflow.providers.openlineage.extractors import OperatorLineage
        from openlineage.client.generated.base import InputDataset, OutputDataset, RunFacet

        facts: dict[str, Any] = {}
        if self.job_id:
            facts["ocean_job"] = {"jobId": self.job_id}
        if self.cost:
            facts["ocean_cost"] = {
                "gasFeeWei": self.cost["gas_fee_wei"],
                "tokens": [
                    {"token": token, "amount": amount} for token, amount in self.cost["tokens"].items()
                ],
                "transactions": self.cost["transactions"],
            }
        return OperatorLineage(
            inputs=[_dataset(InputDataset, name) for name in self.inputs],
            outputs=[_dataset(OutputDataset, name) for name in self.outputs],
            run_facets={
                name: RunFacet().with_additional_properties(**content) for name, content in facts.items()
            },
        )


def _dataset(kind: type[Dataset], name: str) -> Dataset:
    """Return an asset by its DID, or an artifact by its URI, as OpenLineage names files and objects."""
    if name.startswith("did:"):
        return kind(namespace=NAMESPACE, name=name)
    uri = urlsplit(name)
    if uri.scheme in ("", "file"):
        return kind(namespace="file", name=uri.path)
    # The connection's id, before the @, says how to get there, not where it is.
    return kind(namespace=f"{uri.scheme}://{uri.netloc.rpartition('@')[2]}", name=uri.path.lstrip("/"))
