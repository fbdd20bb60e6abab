"""Operators that publish assets and say which algorithms may run on a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_ocean import parameters
from airflow_ocean.assets import tell_outlets
from airflow_ocean.c2d.errors import InvalidInputError
from airflow_ocean.lineage import Lineage
from airflow_ocean.links import OceanAssetLink, OceanTransactionLink
from airflow_ocean.operators.base import OceanStepOperator

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from airflow.sdk import BaseOperatorLink, Context

    from airflow_ocean.c2d.specs import AssetSpec, Credentials, Pricing

_LONGEST_TIMEOUT = 10 * 365 * 24 * 3600


class _PublishOperator(OceanStepOperator):
    """What publishing a dataset and an algorithm have in common."""

    template_fields: Sequence[str] = (
        *OceanStepOperator.template_fields,
        "asset_name",
        "url",
        "files",
        "description",
        "author",
        "license",
        "tags",
        "additional_information",
        "allow_addresses",
        "deny_addresses",
        "datatoken_template",
        "pricing",
        "order_timeout",
        "consumer_parameters",
    )
    operator_extra_links: Collection[BaseOperatorLink] = (OceanAssetLink(), OceanTransactionLink())

    def __init__(
        self,
        *,
        asset_name: str,
        url: str | None = None,
        files: list[dict[str, Any]] | str | None = None,
        description: str = "",
        author: str = "",
        license: str = "CC0: PublicDomain",  # noqa: A002 - the name of the DDO's field
        tags: list[str] | str | None = None,
        additional_information: dict[str, Any] | str | None = None,
        allow_addresses: list[str] | str | None = None,
        deny_addresses: list[str] | str | None = None,
        datatoken_template: int | str = 1,
        pricing: dict[str, Any] | str | None = None,
        order_timeout: int | str = 86_400,
        consumer_parameters: list[dict[str, Any]] | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.asset_name = asset_name
        self.url = url
        self.files = files
        self.description = description
        self.author = author
        self.license = license
        self.tags = tags
        self.additional_information = additional_information
        self.allow_addresses = allow_addresses
        self.deny_addresses = deny_addresses
        self.datatoken_template = datatoken_template
        self.pricing = pricing
        self.order_timeout = order_timeout
        self.consumer_parameters = consumer_parameters

    def asset_spec(self) -> AssetSpec:
        """Return what to publish, every argument checked."""
        raise NotImplementedError

    def execute(self, context: Context) -> str:
        """Publish the asset and return its DID."""
        spec = self.asset_spec()
        self.log.info("Publishing the %s %r", spec.kind, spec.name)
        with self.client(context) as client:
            published = client.assets.publish(spec)
            self.push_cost(context, client)
        self.lineage = Lineage(outputs=[published.did])
        self.note_explorer_pages(transactions=published.transactions, nft_address=published.nft_address)
        instance = context["ti"]
        instance.xcom_push("asset_name", spec.name)
        instance.xcom_push("nft_address", published.nft_address)
        instance.xcom_push("datatoken_address", published.datatoken_address)
        instance.xcom_push("transactions", published.transactions)
        tell_outlets(
            context,
            self.outlets,
            {
                "did": published.did,
                "kind": spec.kind,
                "name": spec.name,
                "datatoken_address": published.datatoken_address,
            },
        )
        return published.did

    def common_fields(self) -> dict[str, Any]:
        """Return the fields of the specification that datasets and algorithms share."""
        return {
            "name": parameters.text("asset_name", self.asset_name),
            "files": self._checked_files(),
            "description": parameters.optional_text("description", self.description) or "",
            "author": parameters.optional_text("author", self.author) or "",
            "license": parameters.text("license", self.license),
            "tags": tuple(
                parameters.text("tags", tag) for tag in parameters.json_list("tags", self.tags) or []
            ),
            "additional_information": parameters.json_object(
                "additional_information", self.additional_information
            )
            or {},
            "credentials": self._checked_credentials(),
            "template": parameters.whole_number(
                "datatoken_template", self.datatoken_template, least=1, most=2
            ),
            "pricing": self._checked_pricing(),
            "timeout": parameters.whole_number(
                "order_timeout", self.order_timeout, least=0, most=_LONGEST_TIMEOUT
            ),
            "consumer_parameters": tuple(
                parameters.json_list("consumer_parameters", self.consumer_parameters) or []
            ),
        }

    def _checked_files(self) -> tuple[dict[str, Any], ...]:
        files = parameters.json_list("files", self.files)
        url = parameters.optional_text("url", self.url)
        if (url is None) == (not files):
            raise InvalidInputError("give either url or files, which is a list of Ocean file objects")
        return tuple(files or [{"type": "url", "url": url, "method": "GET"}])

    def _checked_credentials(self) -> Credentials:
        from airflow_ocean.c2d.specs import Credentials

        return Credentials(
            allow=_addresses("allow_addresses", self.allow_addresses),
            deny=_addresses("deny_addresses", self.deny_addresses),
        )

    def _checked_pricing(self) -> Pricing | None:
        from airflow_ocean.c2d.specs import Pricing

        given = parameters.json_object("pricing", self.pricing)
        if given is None:
            return None
        fields = dict(given)
        kind = parameters.choice("pricing.type", fields.pop("type", None), ("dispenser", "fixed_rate"))
        offered = ("max_tokens", "max_balance") if kind == "dispenser" else ("rate", "base_token")
        if not fields.keys() <= set(offered):
            raise InvalidInputError(
                f"pricing of type {kind} takes {' and '.join(offered)}, not {sorted(fields)}"
            )
        if kind == "dispenser":
            limits = {
                name: parameters.token_amount(f"pricing.{name}", limit) for name, limit in fields.items()
            }
            return Pricing.dispenser(**limits)
        return Pricing.fixed_rate(
            rate=parameters.token_amount("pricing.rate", fields.get("rate", "")),
            base_token=parameters.optional_address("pricing.base_token", fields.get("base_token")),
        )


def _addresses(name: str, value: list[str] | str | None) -> tuple[str, ...]:
    found = (parameters.optional_address(name, item) for item in parameters.json_list(name, value) or [])
    return tuple(address for address in found if address is not None)


class OceanPublishDatasetOperator(_PublishOperator):
    """Publish a dataset as an asset on the chain; the data stays where it is.

    By default the asset offers compute only: whoever orders it may run allowed algorithms on the data, and never
    gets the data itself.

    Returns the DID; pushes ``asset_name``, ``nft_address``, ``datatoken_address``, ``transactions`` and ``cost``. The
    events of its Airflow outlets have ``did``, ``kind``, ``name`` and ``datatoken_address`` in their extra.

    :param asset_name: (templated) the asset's title
    :param url: (templated) where the Provider finds the data; shorthand for one file of the type ``url``
    :param files: (templated) Ocean file objects of the types url, arweave, graphql, smartcontract or ipfs, instead of
        ``url``; a list or its JSON text
    :param allow_download: also sell access, that is the raw data
    :param allow_raw_algorithm: let unpublished algorithms run on the data
    :param allow_network_access: let algorithms reach the network
    :param open_to_all: let every published algorithm run, while no algorithm and no publisher is trusted in particular;
        otherwise nothing runs before :class:`OceanAllowAlgorithmOperator` allowed it
    :param trusted_algorithms: (templated) the algorithms that may run, each with ``did``, ``filesChecksum`` and
        ``containerSectionChecksum`` as in the DDO; :class:`OceanAllowAlgorithmOperator` works them out
    :param trusted_publishers: (templated) addresses all of whose algorithms may run
    :param description: (templated) for the asset's page
    :param author: (templated) who made it
    :param license: (templated) under which it may be used
    :param tags: (templated) words to find it by, a list or its JSON text
    :param additional_information: (templated) further metadata, a JSON object
    :param allow_addresses: (templated) wallets that may order; empty for all
    :param deny_addresses: (templated) wallets that may not order
    :param datatoken_template: (templated) the datatoken's contract: 1 basic, 2 enterprise, which gets and orders a
        datatoken in one transaction
    :param pricing: (templated) how others get datatokens: None, they are handed out by the publisher;
        ``{"type": "dispenser", "max_tokens": "10", "max_balance": "1"}``, free ones;
        ``{"type": "fixed_rate", "rate": "1.5", "base_token": "0x…"}``, sold. Amounts in whole tokens; limits are
        optional, the base token is OCEAN by default
    :param order_timeout: (templated) seconds an order is good for; 0 for ever
    :param consumer_parameters: (templated) the parameters a consumer may set, as in the DDO
    :param ocean_conn_id: (templated) the publisher's connection
    """

    template_fields: Sequence[str] = (
        *_PublishOperator.template_fields,
        "trusted_algorithms",
        "trusted_publishers",
    )

    def __init__(
        self,
        *,
        allow_download: bool = False,
        allow_raw_algorithm: bool = False,
        allow_network_access: bool = False,
        open_to_all: bool = False,
        trusted_algorithms: list[dict[str, str]] | str | None = None,
        trusted_publishers: list[str] | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.allow_download = parameters.boolean("allow_download", allow_download)
        self.allow_raw_algorithm = allow_raw_algorithm
        self.allow_network_access = allow_network_access
        self.open_to_all = open_to_all
        self.trusted_algorithms = trusted_algorithms
        self.trusted_publishers = trusted_publishers

    def asset_spec(self) -> AssetSpec:
        """Return the dataset to publish."""
        from airflow_ocean.c2d.specs import AssetSpec, ComputePolicy

        return AssetSpec(
            kind="dataset",
            **self.common_fields(),
            services=("compute", "access") if self.allow_download else ("compute",),
            compute=ComputePolicy(
                allow_raw_algorithm=parameters.boolean("allow_raw_algorithm", self.allow_raw_algorithm),
                allow_network_access=parameters.boolean("allow_network_access", self.allow_network_access),
                trusted_algorithms=tuple(
                    parameters.json_list("trusted_algorithms", self.trusted_algorithms) or []
                ),
                trusted_publishers=_addresses("trusted_publishers", self.trusted_publishers),
                open_to_all=parameters.boolean("open_to_all", self.open_to_all),
            ),
        )


class OceanPublishAlgorithmOperator(_PublishOperator):
    """Publish an algorithm as an asset on the chain: a file, and the container image it runs in.

    Returns, pushes and tells its Airflow outlets what :class:`OceanPublishDatasetOperator` does. Further arguments are
    those of that operator.

    :param asset_name: (templated) the asset's title
    :param url: (templated) where the Provider finds the algorithm's file
    :param image: (templated) the container image
    :param tag: (templated) the image's tag
    :param checksum: (templated) the image's digest, ``sha256:`` and 64 hexadecimal digits
    :param entrypoint: (templated) the command; ``$ALGO`` stands for the algorithm's file
    :param ocean_conn_id: (templated) the publisher's connection
    """

    template_fields: Sequence[str] = (
        *_PublishOperator.template_fields,
        "image",
        "tag",
        "checksum",
        "entrypoint",
    )

    def __init__(
        self, *, image: str, tag: str, checksum: str, entrypoint: str = "python $ALGO", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.image = image
        self.tag = tag
        self.checksum = checksum
        self.entrypoint = entrypoint

    def asset_spec(self) -> AssetSpec:
        """Return the algorithm to publish."""
        from airflow_ocean.c2d.specs import AlgorithmContainer, AssetSpec

        return AssetSpec(
            kind="algorithm",
            **self.common_fields(),
            services=("access",),
            container=AlgorithmContainer(
                image=parameters.text("image", self.image),
                tag=parameters.text("tag", self.tag),
                checksum=parameters.text("checksum", self.checksum),
                entrypoint=parameters.text("entrypoint", self.entrypoint),
            ),
        )


class OceanAllowAlgorithmOperator(OceanStepOperator):
    """Allow an algorithm, or all algorithms of a publisher, to run on a dataset; or take that back.

    Returns the dataset's DID; pushes ``transactions``, empty when nothing had to change, and ``cost``. When it allowed an
    algorithm, the events of its Airflow outlets have ``dataset_did`` and ``algorithm_did`` in their extra.

    :param dataset_did: (templated) the dataset, owned by the connection's wallet
    :param algorithm_did: (templated) the algorithm to allow, with the file and container it has now
    :param publisher: (templated) the address whose algorithms to allow, instead of ``algorithm_did``
    :param revoke: take the permission back
    :param ocean_conn_id: (templated) the dataset owner's connection
    """

    template_fields: Sequence[str] = (
        *OceanStepOperator.template_fields,
        "dataset_did",
        "algorithm_did",
        "publisher",
    )
    operator_extra_links: Collection[BaseOperatorLink] = (OceanTransactionLink(),)

    def __init__(
        self,
        *,
        dataset_did: str,
        algorithm_did: str | None = None,
        publisher: str | None = None,
        revoke: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dataset_did = dataset_did
        self.algorithm_did = algorithm_did
        self.publisher = publisher
        self.revoke = parameters.boolean("revoke", revoke)

    def execute(self, context: Context) -> str:
        """Change the dataset's permissions and return its DID."""
        dataset = parameters.did("dataset_did", self.dataset_did)
        algorithm = parameters.optional_text("algorithm_did", self.algorithm_did)
        publisher = parameters.optional_address("publisher", self.publisher)
        if (algorithm is None) == (publisher is None):
            raise InvalidInputError("give either algorithm_did or publisher")
        target = (
            {"publisher": publisher}
            if algorithm is None
            else {"algorithm_did": parameters.did("algorithm_did", algorithm)}
        )
        allowed = algorithm or f"the algorithms of {publisher}"
        with self.client(context) as client:
            if self.revoke:
                result = client.assets.revoke_algorithm(dataset, **target)
            else:
                result = client.assets.allow_algorithm(dataset, **target)
            self.push_cost(context, client)
        self.lineage = Lineage([algorithm] if algorithm else [], [dataset])
        self.note_explorer_pages(transactions=result.transactions)
        self.log.info(
            "Dataset %s %s %s%s",
            dataset,
            "no longer allows" if self.revoke else "allows",
            allowed,
            "" if result.transactions else " (as before: no transaction needed)",
        )
        context["ti"].xcom_push("transactions", result.transactions)
        if algorithm is not None and not self.revoke:
            tell_outlets(context, self.outlets, {"dataset_did": result.did, "algorithm_did": algorithm})
        return result.did
