"""What the DAGs are shown with: the embedded Ocean network and the example that runs on it."""
