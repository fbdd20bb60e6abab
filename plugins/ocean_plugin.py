"""What Airflow loads from the plugins folder: the package's pages in the UI."""

from __future__ import annotations

from airflow_ocean.ui.plugin import OceanPlugin

__all__ = ["OceanPlugin"]
