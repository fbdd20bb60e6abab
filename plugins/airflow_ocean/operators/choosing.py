"""The operator that says what to compute with: what was given, or what was published and allowed last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_ocean import parameters
from airflow_ocean.assets import OCEAN_COMPUTABLE
from airflow_ocean.c2d.errors import AssetNotFoundError, InvalidInputError
from airflow_ocean.retries import OceanRetryPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context


class OceanChooseAssetsOperator(BaseOperator):
    """Choose datasets and algorithm: the given ones, else the pair that an algorithm was last allowed for.

    The latter are read from the newest event of the Airflow asset ``ocean_computable``, which becomes an inlet of the task.
    :class:`~airflow_ocean.operators.assets.OceanAllowAlgorithmOperator` emits it when it has the asset as an outlet.

    Returns the list of the datasets' DIDs; pushes ``algorithm_did``.

    :param dataset_dids: (templated) a DID, a list of them, or its JSON text; empty for those published last
    :param algorithm_did: (templated) the algorithm; empty for the one published last. Both are given, or none
    """

    template_fields: Sequence[str] = ("dataset_dids", "algorithm_did")
    ui_color = "#e6f4f7"

    def __init__(
        self,
        *,
        dataset_dids: list[str] | str | None = None,
        algorithm_did: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(retry_policy=OceanRetryPolicy(), **kwargs)
        self.add_inlets([OCEAN_COMPUTABLE])
        self.dataset_dids = dataset_dids
        self.algorithm_did = algorithm_did

    def execute(self, context: Context) -> list[str]:
        """Return the datasets."""
        datasets, algorithm = self._given() or self._published_last(context)
        self.log.info("Computing %s on %s", algorithm, ", ".join(datasets))
        context["ti"].xcom_push("algorithm_did", algorithm)
        return datasets

    def _given(self) -> tuple[list[str], str] | None:
        algorithm = parameters.optional_text("algorithm_did", self.algorithm_did)
        text = self.dataset_dids if isinstance(self.dataset_dids, str) else None
        some = (
            parameters.optional_text("dataset_dids", text) is not None
            if text is not None
            else self.dataset_dids
        )
        if bool(some) != (algorithm is not None):
            raise InvalidInputError(
                "give both dataset_dids and algorithm_did, or none of them to take what was published and allowed last"
            )
        if algorithm is None:
            return None
        return parameters.dids("dataset_dids", self.dataset_dids), parameters.did("algorithm_did", algorithm)

    def _published_last(self, context: Context) -> tuple[list[str], str]:
        newest = list(context["inlet_events"][OCEAN_COMPUTABLE].ascending(False).limit(1))
        extra: Any = (newest[0].extra if newest else None) or {}
        if not {"dataset_did", "algorithm_did"} <= extra.keys():
            raise AssetNotFoundError(
                "neither datasets nor an algorithm were given, and none were published and allowed yet, as far as the events "
                f"of the Airflow asset {OCEAN_COMPUTABLE.name!r} tell: run the DAG ocean_c2d once, or give dataset_dids and "
                "algorithm_did"
            )
        self.log.info("Taking what %s of %s has allowed", newest[0].source_run_id, newest[0].source_dag_id)
        return (
            [parameters.did("dataset_did", extra["dataset_did"])],
            parameters.did("algorithm_did", extra["algorithm_did"]),
        )
