"""The values a pickle may hold, each built by a function that checks what it is given.

A pickle says how to make a value: a function's name, arguments, a state. The names below, and no others, stand for
functions of this module instead of those the pickle means, so that sizes, types and shapes are checked before memory is
taken. NumPy's module names are those of NumPy 1 and 2.
"""

from __future__ import annotations

import datetime
import decimal
import math
import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from airflow_ocean.c2d.result_errors import (
    ResultTooLargeError,
    UndecodableResultError,
    UnsafeResultError,
    shown,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_VALUES = 2_000_000
"""How many values one result may hold; an array of numbers is one."""

MAX_DEPTH = 100
"""How deeply containers may be nested."""

_DTYPE = re.compile(r"b1|[iu][1248]|f2|f4|f8|f12|f16|c8|c16|c24|c32|[mM]8|O[48]?|[SUV]\d{1,9}")
_TIME_UNIT = re.compile(r"Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as")
_RECORD_DEPTH = 8
_SCALARS = (
    type(None), bool, int, float, complex, str, bytes, bytearray, decimal.Decimal, datetime.date, datetime.datetime,
    datetime.time, datetime.timedelta, datetime.timezone,
)  # fmt: skip

_Order = Literal["C", "F"]


@dataclass(frozen=True, slots=True, eq=False)
class AllowedName:
    """A name a pickle may use.

    :param name: module and name, for messages
    :param build: what is called in its place
    """

    name: str
    build: Callable[..., Any]


class PendingDtype:
    """A data type under construction: a pickle first names it, then says its byte order or its fields.

    :param name: such as ``f8``, ``U12``, ``V16``
    """

    __slots__ = ("depth", "dtype", "name")

    def __init__(self, name: object) -> None:
        if not isinstance(name, str) or not _DTYPE.fullmatch(name):
            raise UndecodableResultError(f"it is a pickle with an array of unknown data type {shown(name)}")
        self.name = name
        self.depth = 0
        self.dtype: np.dtype[Any] = np.dtype(name)

    def set_state(self, state: Any) -> None:
        """Take over what ``dtype.__reduce__`` gives: version, byte order, base, names, fields, size, ..."""
        if type(state) is not tuple or not 8 <= len(state) <= 9 or state[0] not in (3, 4):
            raise ValueError(f"unknown state of the data type {self.name}")
        order, base, names, fields, size = state[1:6]
        if order not in ("<", ">", "=", "|"):
            raise ValueError(f"unknown byte order of the data type {self.name}")
        if names is not None:
            self._set_fields(names, fields, size)
        elif base is not None:
            inner, shape = base
            self.depth = self._depth_above([inner])
            self.dtype = np.dtype((inner.dtype, _shape(shape)))
        elif self.name in ("M8", "m8"):
            self.dtype = _time_dtype(self.name, state[8:]).newbyteorder(order)
        else:
            self.dtype = np.dtype(self.name).newbyteorder(order)

    def _set_fields(self, names: Any, fields: Any, size: Any) -> None:
        inner = [fields[name][0] for name in names]
        self.depth = self._depth_above(inner)
        self.dtype = np.dtype(
            {
                "names": list(names),
                "formats": [field.dtype for field in inner],
                "offsets": [fields[name][1] for name in names],
                "itemsize": size,
            }
        )

    def _depth_above(self, inner: list[Any]) -> int:
        if not all(isinstance(field, PendingDtype) and not field.dtype.hasobject for field in inner):
            raise UndecodableResultError("it is a pickle with an array of records that hold objects")
        depth = 1 + max((field.depth for field in inner), default=0)
        if depth > _RECORD_DEPTH:  # NumPy copies nested records by recursion in C
            raise UndecodableResultError(f"it is a pickle with records nested deeper than {_RECORD_DEPTH}")
        return depth


class PendingArray:
    """An array under construction: a pickle first asks for an empty one, then says what it holds.

    :param factory: counts the memory that arrays take
    """

    __slots__ = ("array", "factory", "items", "order", "shape")

    def __init__(self, factory: ValueFactory) -> None:
        self.factory = factory
        self.array: np.ndarray[Any, Any] = np.empty(0, np.int8)
        self.items: list[Any] | None = None
        self.shape: tuple[int, ...] = (0,)
        self.order: _Order = "C"

    def set_state(self, state: Any) -> None:
        """Take over what ``ndarray.__reduce__`` gives: version, shape, data type, whether Fortran order, content."""
        if type(state) is not tuple or len(state) != 5 or not isinstance(state[2], PendingDtype):
            raise ValueError("unknown state of an array")
        dtype, content = state[2].dtype, state[4]
        self.shape, self.order = _shape(state[1]), "F" if state[3] else "C"
        if dtype == np.dtype(object):
            self._expect_items(content)
            self.factory.charge(8 * len(content))
            self.items = content
        else:
            self.array = self.factory.array(content, dtype, self.shape, self.order)

    def with_items(self, items: list[Any]) -> np.ndarray[Any, Any]:
        """Return the array of objects, once what it holds is plain."""
        self._expect_items(items)
        flat = np.empty(len(items), dtype=object)
        for index, item in enumerate(items):  # one by one: a list of lists would be taken for more dimensions
            flat[index] = item
        return flat.reshape(self.shape, order=self.order)

    def _expect_items(self, content: object) -> None:
        if type(content) is not list or len(content) != math.prod(self.shape):
            raise ValueError(f"an array of shape {self.shape} with another number of objects")


class ValueFactory:
    """Makes the values, and counts the memory they take beyond the pickle's own bytes.

    :param max_bytes: how much that may be; a memoised text can otherwise be copied a million times
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = self._left = max_bytes
        found: dict[str, Callable[..., Any]] = {
            "numpy ndarray": self._ndarray,
            "numpy dtype": lambda name, _align=False, _copy=False: PendingDtype(name),
            "_codecs encode": self._encode,
            "collections OrderedDict": self._ordered_dict,
            "decimal Decimal": self._decimal,
            # The short form a pickle uses skips the checks of the long one: `replace` makes them.
            "datetime date": lambda *args: datetime.date(*args).replace(),
            "datetime datetime": lambda *args: datetime.datetime(*args).replace(),
            "datetime time": lambda *args: datetime.time(*args).replace(),
            "datetime timedelta": datetime.timedelta,
            "datetime timezone": datetime.timezone,
        }
        for core in ("numpy.core", "numpy._core"):
            found[f"{core}.multiarray _reconstruct"] = self._reconstruct
            found[f"{core}.multiarray scalar"] = self._scalar
            found[f"{core}.numeric _frombuffer"] = self._frombuffer
        for builtins in ("builtins", "__builtin__"):
            found[f"{builtins} set"] = lambda items=(): set(self._sequence(items))
            found[f"{builtins} frozenset"] = lambda items=(): frozenset(self._sequence(items))
            found[f"{builtins} bytes"] = lambda: b""
            found[f"{builtins} bytearray"] = self._bytearray
            found[f"{builtins} complex"] = lambda real, imaginary: complex(float(real), float(imaginary))
        self.names = {
            tuple(name.split()): AllowedName(name.replace(" ", "."), build) for name, build in found.items()
        }

    def charge(self, size: int) -> None:
        """Count memory that is about to be taken.

        :param size: bytes
        :raises ResultTooLargeError: it is more than is allowed
        """
        self._left -= size
        if self._left < 0:
            raise ResultTooLargeError(
                f"it is a pickle whose values take more than the {self._max_bytes:,} bytes allowed"
            )

    def array(
        self, content: Any, dtype: np.dtype[Any], shape: tuple[int, ...], order: _Order
    ) -> np.ndarray[Any, Any]:
        """Make an array of anything but objects out of its bytes."""
        if isinstance(content, str):  # as Python 2 has it
            content = content.encode("latin-1")
        if not isinstance(content, bytes | bytearray):
            raise ValueError(f"an array made of {type(content).__name__}")
        if dtype.hasobject or dtype.subdtype or not dtype.itemsize:
            raise ValueError(f"an array of the data type {dtype}")
        size = math.prod(shape) * dtype.itemsize
        if size != len(content):
            raise ValueError(f"an array of shape {shape} needs {size} bytes, {len(content)} are there")
        self.charge(size)
        if not size:
            return np.empty(shape, dtype, order)
        # A copy, because an array upon bytes cannot be written to.
        return np.frombuffer(content, dtype).reshape(shape, order=order).copy(order="K")

    def _ndarray(self, *_arguments: object) -> Any:
        raise ValueError("an array made by its class")

    def _reconstruct(self, subtype: object, shape: object, _code: object) -> PendingArray:
        if not isinstance(subtype, AllowedName) or subtype.name != "numpy.ndarray" or shape != (0,):
            raise ValueError("an array that is not an empty numpy.ndarray at first")
        return PendingArray(self)

    def _frombuffer(
        self, content: Any, dtype: Any, shape: Any, order: str, axes: tuple[int, ...] | None = None
    ) -> PendingArray:
        if order not in ("C", "F", "K") or not isinstance(dtype, PendingDtype):
            raise ValueError("unknown state of an array")
        pending = PendingArray(self)
        pending.array = self.array(content, dtype.dtype, _shape(shape), "F" if order == "F" else "C")
        if axes is not None:
            pending.array = pending.array.transpose(_shape(axes))
        return pending

    def _scalar(self, dtype: Any, content: Any) -> Any:
        if not isinstance(dtype, PendingDtype) or dtype.dtype.kind in "OV":
            raise ValueError("a scalar of a data type that has none")
        return self.array(content, dtype.dtype, (1,), "C")[0]

    def _sequence(self, items: Any) -> Iterable[Any]:
        if not isinstance(items, list | tuple):
            raise ValueError(f"a set of {type(items).__name__}")
        self.charge(32 * len(items))
        return items

    def _ordered_dict(self, items: Any = ()) -> OrderedDict[Any, Any]:
        return OrderedDict(self._sequence(items))

    def _encode(self, text: str, encoding: str) -> bytes:
        # Protocols before 3 have no bytes: they write them as text in Latin-1.
        if encoding not in ("latin1", "latin-1"):
            raise ValueError(f"text in the encoding {shown(encoding)}")
        self.charge(len(text))
        return text.encode("latin-1")

    def _bytearray(self, content: Any = b"", encoding: str = "latin-1") -> bytearray:
        if isinstance(content, str):
            content = self._encode(content, encoding)
        if type(content) is not bytes:
            raise ValueError(f"a bytearray made of {type(content).__name__}")
        self.charge(len(content))
        return bytearray(content)

    def _decimal(self, text: Any) -> decimal.Decimal:
        if not isinstance(text, str):
            raise ValueError(f"a decimal made of {type(text).__name__}")
        self.charge(len(text))
        return decimal.Decimal(text)


def plain_value(value: Any) -> Any:
    """Return what was built with every stand-in replaced by what it stands for.

    :param value: the outcome of a pickle
    :raises UnsafeResultError: it is, or holds, a function or class rather than data
    :raises ResultTooLargeError: written out, it holds too many values
    :raises UndecodableResultError: it is nested too deeply or contains itself
    """
    return _Replacement().plain(value).value


@dataclass(frozen=True, slots=True)
class _Plain:
    value: Any
    count: int = 1
    height: int = 0


class _Replacement:
    """Walks through nested values; what is shared is visited once, but counted as often as it occurs."""

    def __init__(self) -> None:
        self._done: dict[int, _Plain] = {}
        self._open: set[int] = set()

    def plain(self, value: Any) -> _Plain:
        if type(value) in _SCALARS or isinstance(value, np.generic):
            return _Plain(value)
        key = id(value)
        if key in self._done:
            return self._done[key]
        if key in self._open:
            raise UndecodableResultError("it is a pickle of something that contains itself")
        self._open.add(key)
        self._check_height(len(self._open))
        children = [self.plain(child) for child in _children(value)]
        self._open.remove(key)
        plain = _Plain(
            _with_children(value, [child.value for child in children]),
            1 + sum(child.count for child in children),
            1 + max((child.height for child in children), default=0),
        )
        self._check_height(plain.height)
        if plain.count > MAX_VALUES:
            raise ResultTooLargeError(f"it is a pickle that stands for more than {MAX_VALUES:,} values")
        self._done[key] = plain
        return plain

    def _check_height(self, height: int) -> None:
        if height > MAX_DEPTH:
            raise UndecodableResultError(f"it is a pickle nested deeper than {MAX_DEPTH}")


def _children(value: Any) -> Iterable[Any]:
    if type(value) in (list, tuple, set, frozenset):
        return value  # type: ignore[no-any-return]
    if type(value) in (dict, OrderedDict):
        return [part for pair in value.items() for part in pair]
    if isinstance(value, PendingArray):
        return value.items or ()
    if isinstance(value, PendingDtype):
        return ()
    raise UnsafeResultError(
        f"it is a pickle of {getattr(value, 'name', type(value).__name__)} itself, which is code, not data; "
        "nothing of it was executed"
    )


def _with_children(value: Any, children: list[Any]) -> Any:
    if type(value) in (dict, OrderedDict):
        return type(value)(zip(children[::2], children[1::2], strict=True))
    if isinstance(value, PendingArray):
        return value.array if value.items is None else value.with_items(children)
    if isinstance(value, PendingDtype):
        return value.dtype
    return type(value)(children)


def _shape(shape: Any) -> tuple[int, ...]:
    if type(shape) is not tuple or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"an array of the shape {shown(shape)}")
    return shape


def _time_dtype(name: str, extra: tuple[Any, ...]) -> np.dtype[Any]:
    if not extra:
        return np.dtype(name)
    unit, number = extra[0][1][:2]
    if unit == b"generic":
        return np.dtype(name)
    if not _TIME_UNIT.fullmatch(unit.decode("ascii")) or type(number) is not int:
        raise ValueError(f"an array of times in the unit {shown(unit)}")
    return np.dtype(f"{name}[{number}{unit.decode('ascii')}]")
