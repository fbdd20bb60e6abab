"""How a person meets the project: ``make demo`` and ``make up``, and the Airflow they start.

The tests start their Airflow with the same modules.
"""
