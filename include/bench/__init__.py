"""`make bench`: what the project costs in requests, transactions, time and memory, measured side by side.

Like the tests it may import everything: `include.localnet`, `include.demo` and `airflow_ocean`. Nothing imports it. One
module holds one measurement; those that end in ``_process`` are run in a process of their own.
"""
