"""A complete Ocean network on loopback: chain, contracts, Aquarius, Provider, operator-service and a file server.

``python -m include.localnet up`` starts it. Each part is a process of its own that knows the others by URL only, so that
each can be replaced by the upstream one. It imports nothing of ``airflow_ocean``.
"""
