"""Which fields each endpoint asks for; the rules' names are those of upstream's ``provider_requests.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from include.localnet.provider.validation import Rules

_SIGNER = {"consumerAddress": ["bail", "required"], "nonce": ["bail", "required", "numeric"]}

NONCE: Rules = {"userAddress": ["required"]}

DECRYPT: Rules = {
    "decrypterAddress": ["required"],
    "chainId": ["required"],
    "dataNftAddress": ["required"],
    "transactionId": ["required_without:dataNftAddress,encryptedDocument,flags,documentHash"],
    "encryptedDocument": ["required_without:transactionId", "required_with:flags,documentHash"],
    "flags": ["required_without:transactionId", "required_with:encryptedDocument,documentHash"],
    "documentHash": ["required_without:transactionId", "required_with:encryptedDocument,flags"],
    "nonce": ["required", "numeric"],
    "signature": ["bail", "decrypt_signature:transactionId,dataNftAddress,decrypterAddress,chainId,nonce"],
}

FILE_INFO: Rules = {
    "type": ["required_without:did", "in:ipfs,url,arweave,graphql,smartcontract"],
    "did": ["required_without:type", "regex:^did:op"],
    "hash": ["required_if:type,ipfs"],
    "url": ["required_if:type,url"],
    "transactionId": ["required_if:type,arweave"],
    "serviceId": ["required_without:type"],
}

INITIALIZE: Rules = {
    "documentId": ["required"],
    "serviceId": ["required"],
    "consumerAddress": ["required"],
    "fileIndex": ["sometimes", "integer", "min:0"],
    "transferTxId": ["sometimes"],
}

DOWNLOAD: Rules = {
    "documentId": ["bail", "required"],
    "serviceId": ["required"],
    "consumerAddress": ["bail", "required"],
    "transferTxId": ["bail", "required"],
    "fileIndex": ["required"],
    "nonce": ["bail", "required", "numeric"],
    "signature": ["download_signature:consumerAddress,documentId,nonce"],
}

_ALGORITHM = {
    "algorithm.documentId": [
        "required_without:algorithm.meta",
        "required_with_all:algorithm.serviceId,algorithm.transferTxId",
    ],
    "algorithm.meta": ["required_without:algorithm.documentId"],
}

INITIALIZE_COMPUTE: Rules = {
    "datasets": ["required"],
    **_ALGORITHM,
    "compute.env": ["required"],
    "compute.validUntil": ["required", "integer"],
    "consumerAddress": ["required"],
}

COMPUTE_START: Rules = {
    "dataset.documentId": ["bail", "required"],
    "dataset.serviceId": ["bail", "required"],
    "dataset.transferTxId": ["required"],
    **_ALGORITHM,
    **_SIGNER,
    "signature": ["bail", "signature:consumerAddress,dataset.documentId,jobId,nonce"],
}

COMPUTE: Rules = {**_SIGNER, "signature": ["signature:consumerAddress,documentId,jobId,nonce"]}

COMPUTE_STATUS: Rules = {"consumerAddress": ["bail", "required"]}

COMPUTE_RESULT: Rules = {
    "jobId": ["bail", "required"],
    "index": ["bail", "required"],
    **_SIGNER,
    "signature": ["bail", "signature:consumerAddress,index,jobId,nonce"],
}

CREATE_TOKEN: Rules = {
    "address": ["bail", "required"],
    "expiration": ["bail", "required", "integer", "timestamp"],
    "nonce": ["bail", "required", "numeric"],
    "signature": ["required", "signature:address,,,nonce"],
}

DELETE_TOKEN: Rules = {
    "address": ["bail", "required"],
    "token": ["bail", "required"],
    "nonce": ["bail", "required", "numeric"],
    "signature": ["required", "signature:address,,,nonce"],
}
