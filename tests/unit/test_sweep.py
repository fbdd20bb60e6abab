"""The members of a sweep."""

from __future__ import annotations

import pytest

from include.sweep import members

DIDS = ["did:op:" + letter * 64 for letter in "ab"]
SETS = [{"points": 20}, {"kernel": "rbf", "seed": 1}, {}]


def test_one_job_for_each_parameter_set_with_all_datasets():
    found = members(DIDS, SETS, one_job_per_dataset=False)
    assert [member["dataset_dids"] for member in found] == [DIDS] * 3
    assert [member["custom_data"] for member in found] == SETS
    assert [member["label"] for member in found] == ["points=20", 'kernel="rbf", seed=1', "defaults"]


def test_one_job_for_each_parameter_set_on_each_dataset():
    found = members(DIDS, SETS, one_job_per_dataset=True)
    assert [member["dataset_dids"] for member in found] == [[DIDS[0]]] * 3 + [[DIDS[1]]] * 3
    labels = [member["label"] for member in found]
    assert labels[0] == "aaaaaaaa: points=20"
    assert len(set(labels)) == 6


@pytest.mark.parametrize(("datasets", "sets"), [([], SETS), (DIDS, [])])
def test_an_empty_sweep_is_refused(datasets, sets):
    with pytest.raises(ValueError, match="at least one"):
        members(datasets, sets, one_job_per_dataset=False)
