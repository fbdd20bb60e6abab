"""What Airflow learns about this distribution without importing it: the connection type, its form, its modules."""

from __future__ import annotations

from typing import Any

from airflow_ocean.c2d.network import known_networks


def _field(label: str, description: str, *, kind: str = "string", **schema: Any) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": [kind, "null"], **schema}}


# In the order of the form. A text of the form that is left empty counts as not given.
_FIELDS = {
    "network_name": _field(
        "Network",
        "Which network the RPC URL is of. Gives Ocean's contracts and the block explorer; nothing is sent to another chain.",
        enum=[None, *known_networks()],
        values_display={
            "null": "Another network",
            **{network.name: network.title for network in known_networks().values()},
        },
    ),
    "provider_url": _field(
        "Provider URL",
        "Root URL of the Provider or Ocean Node that serves this wallet's assets and jobs. Required.",
        examples=["http://127.0.0.1:8030"],
    ),
    "metadata_cache_url": _field(
        "Metadata cache URL",
        "Root URL of Aquarius. For a Provider; an Ocean Node needs none.",
        examples=["http://127.0.0.1:5000"],
    ),
    "keystore_path": _field(
        "Keystore file",
        "Path of an encrypted keystore file on the workers; the password field then holds its password.",
        examples=["/opt/airflow/keystores/bob.json"],
    ),
    "rpc_api_key": _field(
        "RPC API key",
        "The last part of a hosted RPC URL (https://host/v3/KEY), kept apart from it so that nobody sees it.",
        format="password",
    ),
    "address_file": _field(
        "Address file",
        "JSON file on the workers with the addresses of Ocean's contracts. Empty for the public networks, named or not.",
        examples=["/opt/airflow/address.json"],
    ),
    "max_fee_gwei": _field(
        "Fee cap (gwei)",
        "The most a transaction may pay per unit of gas; nothing is sent above it. Empty for no limit.",
        examples=["30"],
    ),
    "max_cost": _field(
        "Spending limit",
        "The most one task may spend, in whole tokens of each token that pays, or as JSON: "
        '{"<token address>": "5", "gas": "0.01"}. Empty for no limit.',
        examples=["5"],
    ),
    "confirmations": _field(
        "Confirmations",
        "Blocks a transaction must be deep, its own included, before it counts. Empty for 1.",
        kind="integer",
        minimum=1,
    ),
    "explorer_url": _field(
        "Block explorer URL",
        "Gives the tasks their links to the chain. Empty for that of the network.",
        examples=["https://etherscan.io"],
    ),
    "artifact_base": _field(
        "Artifact base",
        "Folder or object storage URL below which results and plots are kept. Empty for "
        "$AIRFLOW_OCEAN_ARTIFACTS, else artifacts in AIRFLOW_HOME.",
        examples=["s3://my_s3_connection@my-bucket/ocean"],
    ),
}


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata, the value of the entry point ``apache_airflow_provider``.

    ``package-name`` has to be the canonical name of the installed distribution; Airflow drops the provider otherwise.
    """
    return {
        "package-name": "airflow-ocean",
        "name": "Ocean Protocol",
        "description": "Ocean Protocol Compute-to-Data: publish, order, run and fetch.",
        "integrations": [
            {
                "integration-name": "Ocean Protocol",
                "external-doc-url": "https://docs.oceanprotocol.com",
                "tags": ["protocol"],
            }
        ],
        "hooks": [{"integration-name": "Ocean Protocol", "python-modules": ["airflow_ocean.hooks"]}],
        "operators": [
            {
                "integration-name": "Ocean Protocol",
                "python-modules": [
                    "airflow_ocean.operators.assets",
                    "airflow_ocean.operators.datatokens",
                    "airflow_ocean.operators.choosing",
                    "airflow_ocean.operators.approval",
                    "airflow_ocean.operators.compute",
                    "airflow_ocean.operators.results",
                    "airflow_ocean.operators.plots",
                    "airflow_ocean.operators.rehearsal",
                    "airflow_ocean.operators.escrow",
                ],
            }
        ],
        "sensors": [
            {
                "integration-name": "Ocean Protocol",
                "python-modules": ["airflow_ocean.sensors", "airflow_ocean.operators.escrow"],
            }
        ],
        "triggers": [{"integration-name": "Ocean Protocol", "python-modules": ["airflow_ocean.triggers"]}],
        "connection-types": [
            {
                "connection-type": "ocean",
                "hook-class-name": "airflow_ocean.hooks.OceanHook",
                "hook-name": "Ocean",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "login", "port"],
                    "relabeling": {"host": "RPC URL", "password": "Private key or keystore password"},
                    "placeholders": {
                        "host": "http://127.0.0.1:8545",
                        "password": "0x and 64 hexadecimal digits",
                    },
                },
                "conn-fields": _FIELDS,
            }
        ],
    }
