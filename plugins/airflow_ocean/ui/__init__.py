"""What the package adds to the Airflow UI: a tab on the run page and a page with all compute runs."""
