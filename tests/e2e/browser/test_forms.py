"""The forms that trigger the DAGs: every param with its title, help and kind of field, and what they refuse."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.browser.conftest import DAG_IDS, open_form, open_section, params_of, run_ids
from tests.support import browser as support

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from include.demo.airflow import Airflow

pytestmark = [pytest.mark.e2e, pytest.mark.both_stacks, pytest.mark.timeout(1500)]


def plain(text: str) -> str:
    """Return a text without the marks of Markdown and without lines."""
    return re.sub(r"[`*\n]", "", text)


def kind(param: dict[str, Any]) -> str:
    """Return the selector of the field that a param's schema asks for."""
    schema = param["schema"]
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if "enum" in schema:
        return "[role=combobox]"
    if "object" in types or ("array" in types and schema["items"]["type"] != "string"):
        return ".monaco-editor"  # several lines of JSON
    if "array" in types:
        return "textarea"
    if "boolean" in types:
        return "input[type=checkbox]"
    if "integer" in types or "number" in types:
        return "[role=spinbutton]"
    return "input[list]" if "examples" in schema else "input[id^=element_]:not([list])"


@pytest.mark.parametrize("dag_id", DAG_IDS)
def test_every_param_has_its_place_title_help_and_kind_of_field(
    page: Page, ui_airflow: Airflow, dag_id: str
) -> None:
    page.set_viewport_size({"width": 1100, "height": 1400})
    form = open_form(page, ui_airflow, dag_id)
    for section, params in params_of(ui_airflow, dag_id).items():
        body = open_section(form, section)
        # One JSON editor for each such field loads last.
        for param in params.values():
            body.locator(kind(param)).first.wait_for(state="attached")
        said = plain(body.inner_text())
        for name, param in params.items():
            assert plain(param["schema"]["title"]) in said, name
            assert plain(param["schema"]["description_md"]) in said, name
        kinds = [kind(param) for param in params.values()]
        for selector in set(kinds):
            assert body.locator(selector).count() >= kinds.count(selector), (section, selector)
        support.screenshot(
            page,
            f"form-{dag_id}-{section.replace(' ', '-').lower()}",
            documented=(dag_id, section) == ("ocean_c2d", "Computation"),
        )


@pytest.mark.parametrize(
    ("dag_id", "section", "name", "wrong"),
    [
        ("ocean_c2d", "Computation", "spending_limit", "much"),
        ("ocean_c2d", "Dataset", "dataset_url", "branin.arff"),
        ("ocean_c2d_recurring", "Assets", "dataset_dids", "did:op:5"),
        ("ocean_c2d_sweep", "Assets", "algorithm_did", "did:op:5"),
        ("ocean_algorithm_rehearsal", "Limits", "memory", "much"),
    ],
)
def test_a_bad_value_is_refused_and_named(
    page: Page, ui_airflow: Airflow, dag_id: str, section: str, name: str, wrong: str
) -> None:
    before = run_ids(ui_airflow, dag_id)
    form = open_form(page, ui_airflow, dag_id)
    form.get_by_role("button", name=section, exact=True).click()
    form.locator(f"#element_{name}").fill(wrong)
    # Where the form asks whether to switch the DAG on, too, it stays as it is.
    switch = form.get_by_role("checkbox", name=re.compile("^Unpause"))
    if switch.count():
        switch.uncheck(force=True)
    form.get_by_role("button", name="Trigger").last.click()
    form.get_by_text(f"Invalid input for param {name}").wait_for()
    assert run_ids(ui_airflow, dag_id) == before


def test_a_field_that_is_needed_cannot_be_left_empty(page: Page, ui_airflow: Airflow) -> None:
    form = open_form(page, ui_airflow, "ocean_c2d")
    form.get_by_role("button", name="Dataset", exact=True).click()
    form.locator("#element_dataset_name").fill("")
    form.get_by_text("This field is required").wait_for()
    assert form.get_by_role("button", name="Trigger").last.is_disabled()
