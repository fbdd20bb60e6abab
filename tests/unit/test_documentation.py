"""The pages of docs/: generated ones are up to date, links lead somewhere, and settings that are named exist."""

from __future__ import annotations

import re
import runpy
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.support.airflow import PROJECT, prepare_airflow_home

if TYPE_CHECKING:
    from pathlib import Path

prepare_airflow_home()

PAGES = sorted([*(PROJECT / "docs").glob("*.md"), PROJECT / "README.md", PROJECT / "CONTRIBUTING.md"])


def test_the_page_of_the_operators_is_up_to_date():
    written = runpy.run_path(str(PROJECT / "docs" / "make_operators.py"))
    assert (PROJECT / "docs" / "operators.md").read_text() == written["page"](), "run `make docs`"


def test_every_operator_is_on_it():
    from airflow_ocean.get_provider_info import get_provider_info

    text = (PROJECT / "docs" / "operators.md").read_text()
    modules = [
        module
        for kind in ("operators", "sensors")
        for entry in get_provider_info()[kind]
        for module in entry["python-modules"]
    ]
    for module in modules:
        source = (PROJECT / "plugins" / module.replace(".", "/")).with_suffix(".py").read_text()
        for name in re.findall(r"^class (Ocean\w+(?:Operator|Sensor))\(", source, re.MULTILINE):
            if name not in ("OceanBaseOperator", "OceanStepOperator"):
                assert f"## {name}\n" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_page_is_in_the_index():
    index = (PROJECT / "docs" / "README.md").read_text()
    for page in (PROJECT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name


def test_every_metric_is_documented_and_every_documented_one_exists():
    source = (PROJECT / "plugins" / "airflow_ocean" / "metrics.py").read_text()
    listed = set(re.findall(r"^``(ocean\.[\w.]+)``", source, re.MULTILINE))
    described = set(re.findall(r"`(ocean\.[\w.]+)`", (PROJECT / "docs" / "operating.md").read_text()))
    sent = set(re.findall(r'"(ocean\.[\w.]+)"', source)) | {
        f"ocean.orders.{way}" for way in ("new", "renewed", "reused")
    }
    assert listed == sent == described


def test_the_values_for_kubernetes_are_what_the_image_and_the_package_expect():
    values = yaml.safe_load((PROJECT / "deploy" / "helm-values.yaml").read_text())
    assert values["executor"] == "KubernetesExecutor"
    assert f"apache-airflow=={values['airflowVersion']}\n" in (PROJECT / "requirements.txt").read_text()
    from airflow.configuration import conf

    for variable in (entry["name"] for entry in values["env"]):
        if variable.startswith("AIRFLOW__"):
            _, section, option = variable.lower().split("__")
            assert conf.get(section, option, fallback=None) is not None or section == "common_io", variable
    assert (
        yaml.safe_load(values["extraEnvFrom"])[0]["secretRef"]["name"]
        in (PROJECT / "docs" / "operating.md").read_text()
    )
