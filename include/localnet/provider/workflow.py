"""From a request to start a job to the job: every check of its parts, and the workflow that is handed over."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from include.localnet.provider.algorithms import Algorithm, stage_of, trust_problem, with_checksums
from include.localnet.provider.credentials import refusal_of
from include.localnet.provider.encryption import files_of
from include.localnet.provider.errors import Refused
from include.localnet.provider.fees import is_paid
from include.localnet.provider.orders import InvalidOrder, Order, verify_order
from include.localnet.provider.parameters import check_parameters

if TYPE_CHECKING:
    from include.localnet.provider.assets import Asset, Service
    from include.localnet.provider.configuration import Provider


@dataclass(frozen=True)
class Input:
    """A checked dataset of a job.

    :param data: the request's object for it
    """

    index: int
    data: dict[str, Any]
    asset: Asset
    service: Service

    def stage(self) -> dict[str, Any]:
        """Return the dataset as a workflow stage names it, which is what the compute engine reads."""
        remote: dict[str, Any] = {"txId": self.data.get("transferTxId"), "serviceId": self.service.id}
        if self.data.get("userdata"):
            remote["userdata"] = self.data["userdata"]
        return {"index": self.index, "id": self.asset.did, "remote": remote}


def _resource(index: int) -> str:
    return f"datasets[{index}]" if index else "dataset"


def check_input(
    provider: Provider, consumer: Any, data: Any, algorithm: Algorithm, index: int, ordered: bool
) -> Input:
    """Check one dataset of a job, without its order.

    :param index: position in the job; the first dataset must be a compute service
    :param ordered: whether the request must name an order
    :raises Refused: naming the wrong part as upstream does
    """
    resource = _resource(index)
    if not isinstance(data, dict):
        raise Refused({resource: "invalid"})
    for key in ("documentId", "transferTxId") if ordered else ("documentId",):
        if not data.get(key):
            raise Refused({f"{resource}.{key}": "missing"})
    if not data.get("serviceId") and data.get("serviceId") != 0:
        raise Refused({f"{resource}.serviceId": "missing"})
    asset = provider.aquarius.asset(data["documentId"])
    if asset is None:
        raise Refused({f"{resource}.documentId": "did_not_found"})
    service = asset.service(data["serviceId"])
    if service is None:
        raise Refused({f"{resource}.serviceId": "not_found"})
    refusal = refusal_of(provider, asset, consumer)
    if refusal:
        raise Refused({resource: refusal})
    _check_service(provider, asset, service, algorithm, index)
    return Input(index, data, asset, service)


def _check_service(
    provider: Provider, asset: Asset, service: Service, algorithm: Algorithm, index: int
) -> None:
    resource = _resource(index)
    if service.type not in ("access", "compute"):
        raise Refused({f"{resource}.serviceId": "service_not_access_compute"})
    if service.type != "compute":
        if index == 0:
            raise Refused({f"{resource}.serviceId": "main_service_compute"})
        return
    if not files_of(provider.configuration.private_key, asset, service):
        raise Refused({f"{resource}.serviceId": "compute_services_not_in_same_provider"})
    problem = trust_problem(service, algorithm)
    if problem:
        raise Refused({resource: problem})


def algorithm_to_start(provider: Provider, consumer: Any, data: Any) -> Algorithm:
    """Check the algorithm of a job to start, without its order.

    A request with both ``documentId`` and ``meta`` runs the published algorithm: it is the one that is checked and paid.

    :raises Refused: naming the wrong part as upstream does
    """
    if not isinstance(data, dict) or (data.get("documentId") is None and data.get("meta") is None):
        raise Refused({"algorithm": "missing_meta_documentId"})
    if not data.get("documentId"):
        return Algorithm(data)
    asset = provider.aquarius.asset(data["documentId"])
    if asset is None:
        raise Refused({"algorithm": "did_not_found"})
    if not asset.is_algorithm:
        raise Refused({"algorithm": "not_algo"})
    if not data.get("serviceId") and data.get("serviceId") != 0:
        raise Refused({"algorithm.serviceId": "missing"})
    service = asset.service(data["serviceId"])
    if service is None:
        raise Refused({"algorithm.serviceId": "not_found"})
    algorithm = with_checksums(provider, data, asset, service)
    refusal = refusal_of(provider, asset, consumer)
    if refusal:
        raise Refused({"algorithm.credentials": refusal})
    return algorithm


def _check_custom_data(algorithm: Algorithm, inputs: list[Input]) -> None:
    for item in inputs:
        resource = f"{_resource(item.index)}.userdata"
        check_parameters(resource, item.service.consumer_parameters, item.data.get("userdata"))
    if algorithm.asset is None or algorithm.service is None:
        return
    data = algorithm.data
    own = (algorithm.asset.metadata.get("algorithm") or {}).get("consumerParameters")
    check_parameters("algorithm.algocustomdata", own, data.get("algocustomdata"))
    userdata = data.get("userdata") or data.get("algouserdata")
    check_parameters("algorithm.userdata", algorithm.service.consumer_parameters, userdata)


def _input_order(provider: Provider, consumer: Any, item: Input, environment: Any) -> Order:
    try:
        return verify_order(
            provider,
            consumer,
            item.data["transferTxId"],
            item.asset,
            item.service,
            environment=environment,
            compute=True,
        )
    except InvalidOrder as error:
        raise Refused({f"{_resource(item.index)}.serviceId": "order_invalid"}) from error


def _algorithm_order(provider: Provider, consumer: Any, algorithm: Algorithm) -> Order | None:
    if algorithm.asset is None or algorithm.service is None:
        return None
    try:
        return verify_order(
            provider, consumer, algorithm.data.get("transferTxId"), algorithm.asset, algorithm.service
        )
    except InvalidOrder as error:
        raise Refused({"algorithm": "in_use_or_not_on_chain"}) from error


def _datasets(data: dict[str, Any]) -> list[Any]:
    additional = data.get("additionalDatasets") or []
    if not isinstance(additional, list):
        raise Refused({"additional_input": "invalid"})
    return [data["dataset"], *additional]


def _check_output(data: dict[str, Any]) -> None:
    output = data.get("output")
    if not isinstance(output, str) or not output:
        return
    try:
        json.loads(output)
    except ValueError as error:
        raise Refused({"output": "invalid"}) from error


def job_of(provider: Provider, data: dict[str, Any]) -> dict[str, Any]:
    """Check a request to start a job and return what the operator-service is sent, but for the signature.

    :raises Refused: naming the first wrong part as upstream does
    """
    consumer = data["consumerAddress"]
    environment_id = data.get("environment")
    datasets = _datasets(data)
    algorithm = algorithm_to_start(provider, consumer, data.get("algorithm"))
    inputs: list[Input] = []
    orders: list[Order] = []
    for index, item in enumerate(datasets):
        checked = check_input(provider, consumer, item, algorithm, index, ordered=True)
        orders.append(_input_order(provider, consumer, checked, environment_id))
        inputs.append(checked)
    algorithm_order = _algorithm_order(provider, consumer, algorithm)
    stage = stage_of(algorithm)
    _check_custom_data(algorithm, inputs)
    _check_output(data)

    environment = provider.environment(environment_id)
    if environment is None:
        raise Refused("Compute environment does not exist")
    # The last order that covers the price is the job's agreement: the algorithm's where everything is free.
    candidates = [(order, item.data["transferTxId"]) for order, item in zip(orders, inputs, strict=True)]
    if algorithm_order:
        candidates.append((algorithm_order, algorithm.data["transferTxId"]))
    valid_until = max(order.valid_until for order, _ in candidates)
    agreements = [
        transaction
        for order, transaction in candidates
        if is_paid(provider, environment, valid_until, order.fee_amount)
    ]
    if not agreements:
        raise Refused({"order": "fees_not_paid"})
    return {
        "workflow": {
            "stages": [
                {
                    "index": 0,
                    "input": [item.stage() for item in inputs],
                    "compute": {"Instances": 1, "namespace": "ocean-compute", "maxtime": 3600},
                    "algorithm": stage,
                    "output": {"metadataUri": provider.configuration.aquarius_url},
                }
            ]
        },
        "agreementId": agreements[-1],
        "owner": consumer,
        "environment": environment_id,
        "validUntil": valid_until,
        "chainId": provider.chain.chain_id,
    }
