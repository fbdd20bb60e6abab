"""Ocean Compute-to-Data as a plain Python library; imports nothing of Airflow.

:class:`~airflow_ocean.c2d.client.OceanClient` is the way in.
"""

import warnings

# web3 6 imports pkg_resources, which warns that it is deprecated each time; ocean-lib pins that web3, so nobody who reads
# the warning in a task's log could do anything about it.
warnings.filterwarnings("ignore", message="pkg_resources is deprecated", category=UserWarning)
