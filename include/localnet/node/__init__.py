"""Ocean Node, the service of Ocean's live network: Provider, metadata cache and compute in one HTTP API.

Paths, payloads, status codes and texts are those of the upstream Ocean Node 3.2.0
(https://github.com/oceanprotocol/ocean-node, commit 96fb2ff), its faults included where a client meets them: each is named
where it is reproduced. The index is the one of :mod:`include.localnet.aquarius`, files and encryption are those of
:mod:`include.localnet.provider`, jobs run in the sandbox of :mod:`include.localnet.operator_service`.

What other nodes are needed for is left out (libp2p, ``directCommand``), and so are the administration, persistent storage,
remote outputs, building images and policy servers: ``GET /`` names their endpoints, which answer 404.
"""
