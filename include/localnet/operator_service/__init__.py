"""The operator-service of the local network: Ocean's HTTP interface for compute jobs, and the engine that runs them.

Upstream splits this over the operator-service (HTTP), the operator-engine (life cycle) and the pods pod-configuration
(fetching) and pod-publishing (results); paths, payloads, texts and the order of events are theirs. In the place of
Kubernetes and container images stands a bubblewrap sandbox with the project's own Python.
"""
