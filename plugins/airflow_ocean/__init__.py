"""Ocean Protocol Compute-to-Data for Apache Airflow: hook, operators, sensor, trigger and links."""
