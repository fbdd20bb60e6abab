"""The DDO's shapes: which fields a DDO has, how often, how long, and of what type, per DDO version.

Source: Aquarius' SHACL schemas ``remote_4.0.0.ttl`` to ``remote_4.5.0.ttl``.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

CURRENT_VERSION = "4.5.0"
VERSIONS = ("4.0.0", "4.1.0", "4.3.0", "4.5.0")

# SHACL's ``.`` stops at line ends: with the first pattern a text must be one line.
ONE_LINE = "^(.*)$"
LINES = "^((.|\n)*)$"
ANYTHING = r"^(.|\s)*$"


@dataclass(frozen=True)
class Field:
    """What SHACL calls a property shape.

    :param datatype: ``string``, ``integer`` or ``boolean``; None when any value will do
    :param shape: the shape every value has to have
    """

    datatype: str | None = None
    pattern: str | None = None
    min_count: int = 0
    max_count: int | None = None
    min_length: int | None = None
    max_length: int | None = None
    shape: Shape | None = None


@dataclass(frozen=True)
class Shape:
    """A named set of fields; fields it does not name are free."""

    name: str
    fields: dict[str, Field]


def _one(max_length: int, *, least: int | None = None, pattern: str = ONE_LINE) -> Field:
    return Field("string", pattern, 1, 1, least, max_length)


def _maybe(max_length: int, *, least: int | None = None, pattern: str = ONE_LINE) -> Field:
    return Field("string", pattern, 0, 1, least, max_length)


def _many(max_length: int, *, most: int | None = None, least: int = 0, pattern: str = ONE_LINE) -> Field:
    return Field("string", pattern, least, most, None, max_length)


_FLAG = Field("boolean", None, 1, 1)

_CONSUMER_PARAMETERS = Shape(
    "ConsumerParametersShape",
    {
        "name": _one(256),
        "type": _one(256),
        "label": _one(256),
        "required": _FLAG,
        "description": _one(7000, pattern=LINES),
        "default": _one(256),
        "options": _many(256),
    },
)
_CONTAINER = Shape(
    "ContainerShape",
    {
        "entrypoint": _one(256, least=3),
        "image": _one(256, least=1),
        "tag": _one(256, least=1),
        "checksum": _one(512, least=7),
    },
)
_ALGORITHM = Shape(
    "AlgorithmShape",
    {
        "version": _maybe(256),
        "language": _maybe(256),
        "container": Field(min_count=1, max_count=1, shape=_CONTAINER),
        "consumerParameters": Field(max_count=64, shape=_CONSUMER_PARAMETERS),
    },
)
_METADATA = Shape(
    "MetadataShape",
    {
        "description": _one(7000, least=10, pattern=LINES),
        "copyrightHolder": _maybe(512, pattern=ANYTHING),
        "name": _one(512, least=4, pattern=ANYTHING),
        "type": _one(256, pattern=ANYTHING),
        "author": _one(256, pattern=ANYTHING),
        "license": _one(256, pattern=ANYTHING),
        "links": _many(512, most=64, pattern=ANYTHING),
        "tags": _many(256, most=64, pattern=ANYTHING),
        "categories": _many(256, most=64, pattern=ANYTHING),
        "contentLanguage": _maybe(256, pattern=ANYTHING),
        "additionalInformation": Field(),
        "algorithm": Field(max_count=1, shape=_ALGORITHM),
    },
)
_TRUSTED_ALGORITHM = Shape(
    "TrustedAlgoShape",
    {"did": _one(256), "filesChecksum": _one(1024), "containerSectionChecksum": _one(1024)},
)
_COMPUTE = Shape(
    "ComputeShape",
    {
        "allowRawAlgorithm": _FLAG,
        "allowNetworkAccess": _FLAG,
        "publisherTrustedAlgorithmPublishers": _many(256),
        "publisherTrustedAlgorithms": Field(shape=_TRUSTED_ALGORITHM),
    },
)
_SERVICE = Shape(
    "ServiceShape",
    {
        "id": _one(256),
        "type": _one(256),
        "name": _maybe(256, least=4),
        "description": _maybe(7000, least=10, pattern=LINES),
        "datatokenAddress": _one(42, least=42),
        "serviceEndpoint": _one(2048, least=10),
        "files": _one(8192),
        "timeout": Field("integer", ONE_LINE, 1, 1),
        "compute": Field(max_count=1, shape=_COMPUTE),
        "additionalInformation": Field(),
        "consumerParameters": Field(shape=_CONSUMER_PARAMETERS),
    },
)
_CREDENTIALS_ITEM = Shape("CredentialsItemShape", {"type": _one(256), "values": _many(1024, least=1)})
_CREDENTIALS = Shape(
    "CredentialsShape", {"deny": Field(shape=_CREDENTIALS_ITEM), "allow": Field(shape=_CREDENTIALS_ITEM)}
)
_DDO = Shape(
    "DDOShape",
    {
        "id": Field("string", r"^did\:op\:(.*)$", 1, 1, 71, 71),
        "version": _one(16),
        "chainId": Field("integer", None, 1, 1),
        "nftAddress": Field("string", None, 1, 1, 42, 42),
        "metadata": Field(min_count=1, max_count=1, shape=_METADATA),
        "services": Field(max_count=64, shape=_SERVICE),
        "credentials": Field(max_count=64, shape=_CREDENTIALS),
    },
)

# What 4.5.0 asks for on top of 4.3.0: (shape, field).
_NEW_IN_4_5 = {
    ("MetadataShape", "description"),
    ("MetadataShape", "name"),
    ("ContainerShape", "entrypoint"),
    ("ContainerShape", "image"),
    ("ContainerShape", "tag"),
}


def _older(shape: Shape, version: str) -> Shape:
    fields = {}
    for name, field in shape.fields.items():
        older = replace(field, shape=_older(field.shape, version)) if field.shape else field
        if (shape.name, name) in _NEW_IN_4_5:
            older = replace(older, min_length=None)
        if (shape.name, name) == ("DDOShape", "services"):
            older = replace(older, min_count=1)
        if version in ("4.0.0", "4.1.0"):
            most = None if (older.max_count or 0) > 1 else older.max_count
            older = replace(older, min_length=None, max_length=None, max_count=most)
        fields[name] = older
    return Shape(shape.name, fields)


@functools.cache
def shape_of(version: str) -> Shape:
    """Return the shape of a DDO of a version.

    :raises KeyError: when there is no such version
    """
    if version not in VERSIONS:
        raise KeyError(version)
    return _DDO if version == CURRENT_VERSION else _older(_DDO, version)


def describe(shape: Shape) -> dict[str, Any]:
    """Return a shape in the form in which ``/api/aquarius/validation/schema`` shows it."""
    names = {
        "pattern": "pattern",
        "minCount": "min_count",
        "maxCount": "max_count",
        "minLength": "min_length",
        "maxLength": "max_length",
    }
    return {
        name: describe(field.shape)
        if field.shape
        else {key: value for key, attribute in names.items() if (value := getattr(field, attribute))}
        for name, field in shape.fields.items()
    }
