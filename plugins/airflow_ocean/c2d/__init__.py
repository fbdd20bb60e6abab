"""Ocean Compute-to-Data as a plain Python library; imports nothing of Airflow.

:class:`~airflow_ocean.c2d.client.OceanClient` is the way in.
"""
