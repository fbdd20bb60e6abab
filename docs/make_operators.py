"""Writes ``operators.md`` from the docstrings of the operators and the sensor: ``make docs``. A test compares them."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

from airflow_ocean.operators import (
    approval,
    assets,
    choosing,
    compute,
    datatokens,
    escrow,
    plots,
    rehearsal,
    results,
)
from airflow_ocean.sensors import OceanComputeSensor

PAGE = Path(__file__).with_name("operators.md")
OPERATORS = [
    assets.OceanPublishDatasetOperator,
    assets.OceanPublishAlgorithmOperator,
    assets.OceanAllowAlgorithmOperator,
    datatokens.OceanTransferDatatokensOperator,
    choosing.OceanChooseAssetsOperator,
    approval.OceanApproveSpendingOperator,
    compute.OceanPayForComputeOperator,
    compute.OceanStartComputeOperator,
    OceanComputeSensor,
    results.OceanFetchResultsOperator,
    plots.OceanPlotOperator,
    plots.OceanPlotSeveralOperator,
    compute.OceanStopComputeOperator,
    escrow.OceanSettlementSensor,
    escrow.OceanWithdrawFromEscrowOperator,
    rehearsal.OceanRehearseAlgorithmOperator,
]
HEAD = """# The operators

<!-- Written by `make docs` from the docstrings. Change those. -->

Every argument is passed by name. *Templated* ones take Jinja templates and the outputs of other tasks. All operators take
what Airflow's `BaseOperator` takes, the sensor what `BaseSensorOperator` takes. An error that may pass is tried again;
one that will not fails the task at once.
"""


def page() -> str:
    """Return the whole page."""
    return "\n".join([HEAD, *(section(operator) for operator in OPERATORS)])


def section(operator: type) -> str:
    """Return an operator's part of the page: what it does, and its arguments, inherited ones last."""
    text = inspect.getdoc(operator) or ""
    lines = [f"## {operator.__name__}\n", f"`from {operator.__module__} import {operator.__name__}`\n"]
    lines.append(plain(text.split("\n:param ")[0].strip()) + "\n")
    lines += ["| argument | | |", "|---|---|---|"]
    for name, description in arguments(operator).items():
        templated, description = "(templated) " in description, description.replace("(templated) ", "", 1)
        description = plain(description).replace("|", "\\|")
        lines.append(
            f"| `{name}` | {'templated' if templated else ''} | {description}{default(operator, name)} |"
        )
    return "\n".join(lines) + "\n"


def arguments(operator: type) -> dict[str, str]:
    """Return the documented arguments that an operator takes, its own before those of its bases."""
    taken = {
        name
        for level in operator.__mro__
        if level.__module__.startswith("airflow_ocean")
        for name in inspect.signature(level.__init__).parameters
    }
    levels = [level for level in operator.__mro__ if level.__module__.startswith("airflow_ocean")]
    # What publishing operators share is described at the first one.
    levels += (
        [assets.OceanPublishDatasetOperator]
        if "OceanPublishDatasetOperator" in (operator.__doc__ or "")
        else []
    )
    found: dict[str, str] = {}
    for level in levels:
        blocks = re.findall(
            r"^:param (\w+): (.*?)(?=^:|\Z)", inspect.getdoc(level) or "", re.MULTILINE | re.DOTALL
        )
        for name, description in blocks:
            if name in taken:
                found.setdefault(name, " ".join(description.split()))
    return found


def default(operator: type, name: str) -> str:
    """Return what an argument is when it is left out, as text after its description."""
    for level in operator.__mro__:
        parameter = (
            inspect.signature(level.__init__).parameters.get(name) if "__init__" in vars(level) else None
        )
        if parameter is not None:
            if parameter.default is parameter.empty:
                return ". **Required**"
            plain_value = parameter.default not in (None, "") and isinstance(
                parameter.default, (str, int, float, bool)
            )
            return f". Default: `{parameter.default}`" if plain_value else ""
    return ""


def plain(text: str) -> str:
    """Return a docstring's RST as Markdown."""
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", text)
    return text.replace("``", "`")


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.stdout.write(f"{PAGE.name} is written\n")
