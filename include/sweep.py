"""The members of a sweep: which datasets each job gets, and with which parameters."""

from __future__ import annotations

import json
from typing import Any


def members(
    dataset_dids: list[str], parameter_sets: list[dict[str, Any]], one_job_per_dataset: bool
) -> list[dict[str, Any]]:
    """Return one member for each parameter set, or for each parameter set on each dataset.

    :param dataset_dids: the datasets
    :param parameter_sets: custom data of the algorithm, a JSON object for each
    :param one_job_per_dataset: give each job one dataset; otherwise each job gets all of them as its inputs
    :return: of each member ``dataset_dids``, ``custom_data`` and ``label``
    :raises ValueError: when there is nothing to compute
    """
    if not dataset_dids or not parameter_sets:
        raise ValueError("a sweep needs at least one dataset and one parameter set")
    inputs = [[did] for did in dataset_dids] if one_job_per_dataset else [list(dataset_dids)]
    found = []
    for chosen in inputs:
        for parameters in parameter_sets:
            label = (
                ", ".join(f"{name}={json.dumps(value)}" for name, value in parameters.items()) or "defaults"
            )
            if len(inputs) > 1:
                label = f"{chosen[0].removeprefix('did:op:')[:8]}: {label}"
            found.append({"dataset_dids": chosen, "custom_data": parameters, "label": label})
    return found
