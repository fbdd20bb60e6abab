"""The least a DAG file can be: what the others' parse times are compared with."""

from __future__ import annotations

from airflow.sdk import DAG

with DAG(dag_id="empty") as dag:
    pass
