"""Reading pickles that nobody vouches for: NumPy arrays, plain containers and scalars, nothing else.

``pickle.Unpickler`` with a restricted ``find_class`` keeps foreign code from being called, but not the interpreter from
being brought down: a ``BUILD`` reaches ``ndarray.__setstate__``, which trusts the length of the list it is given, a
``LONG_BINPUT`` allocates gigabytes, and tuples nested a million deep overflow the C stack once one is a dictionary's key.
So the opcodes, as the standard library's :func:`pickletools.genops` reads them, are interpreted here, on plain lists and
dictionaries, and each one that is not needed for plain data is refused.

Time is not limited here, except by the size of the input; a task's ``execution_timeout`` does that.
"""

from __future__ import annotations

import pickletools
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_ocean.c2d.pickled_values import (
    MAX_DEPTH,
    MAX_VALUES,
    AllowedName,
    PendingArray,
    PendingDtype,
    ValueFactory,
    plain_value,
)
from airflow_ocean.c2d.result_errors import (
    ResultTooLargeError,
    UndecodableResultError,
    UnsafeResultError,
    shown,
)

if TYPE_CHECKING:
    from collections.abc import Callable

# Opcodes that push their argument: whole numbers, floats, text and bytes, in every notation since protocol 0.
_LITERALS = [
    "INT",
    "BININT",
    "BININT1",
    "BININT2",
    "LONG",
    "LONG1",
    "LONG4",
    "FLOAT",
    "BINFLOAT",
    "STRING",
    "BINSTRING",
    "SHORT_BINSTRING",
    "UNICODE",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE8",
    "BINBYTES",
    "SHORT_BINBYTES",
    "BINBYTES8",
    "BYTEARRAY8",
]


def loads(data: bytes, *, max_bytes: int) -> Any:
    """Decode a pickle without running anything of it.

    :param data: the pickle, of any protocol
    :param max_bytes: how many bytes the values built from it may take beyond those it holds itself
    :return: NumPy arrays and scalars, None, numbers, text, bytes, dates, and lists, tuples, dictionaries, sets of them
    :raises UnsafeResultError: it names a function or class that is not needed for plain data
    :raises ResultTooLargeError: a small pickle that would make large values
    :raises UndecodableResultError: it is damaged, nested too deeply, or contains itself
    """
    try:
        return plain_value(_Machine(max_bytes).run(data))
    except (UnsafeResultError, ResultTooLargeError, UndecodableResultError):
        raise
    except Exception as error:  # an untrusted file can go wrong anywhere, in any way
        raise UndecodableResultError(
            f"it is a pickle, but a damaged one: {type(error).__name__}: {shown(error)}"
        ) from error


def is_pickle(data: bytes) -> bool:
    """Say whether bytes are a pickle: by the mark of protocol 2 and later, or, for the older ones, by reading them.

    :param data: the beginning of a file is not enough for protocols 0 and 1, which have no mark
    """
    if data[:1] == b"\x80" and data[1:2] <= b"\x0f":
        return True
    if not data.rstrip(b"\r\n").endswith(b"."):
        return False
    try:
        first, last, end = None, None, 0
        for count, (opcode, _, position) in enumerate(pickletools.genops(data)):
            first, last, end = first or opcode, opcode, position or 0
            if count > MAX_VALUES:
                return True  # no text reads as that many opcodes
    except Exception:  # the reader of opcodes raises whatever it stumbles over
        return False
    # "2." is a number, though both signs are opcodes: a pickle cannot begin by using a value.
    return bool(
        first and last and not first.stack_before and last.name == "STOP" and end + 1 >= len(data.rstrip())
    )


class _Machine:
    """The pickle machine: a stack, its marks, and a memo.

    :param max_bytes: see :func:`loads`
    """

    def __init__(self, max_bytes: int) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.tuple_depths: dict[int, int] = {}
        self.factory = ValueFactory(max_bytes)
        self.opcodes = self._opcodes()

    def _opcodes(self) -> dict[str, Callable[[Any], None]]:
        push, pop = self.stack.append, self._pop
        return {
            **dict.fromkeys(_LITERALS, push),
            **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), self._put),
            **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda key: push(self.memo[key])),
            "PROTO": self._protocol,
            "FRAME": lambda _: None,
            "STOP": lambda _: None,
            "NONE": lambda _: push(None),
            "NEWTRUE": lambda _: push(True),
            "NEWFALSE": lambda _: push(False),
            "EMPTY_LIST": lambda _: push([]),
            "EMPTY_TUPLE": lambda _: push(()),
            "EMPTY_DICT": lambda _: push({}),
            "EMPTY_SET": lambda _: push(set()),
            "MARK": lambda _: self.marks.append(len(self.stack)),
            "POP": lambda _: self._drop(),
            "POP_MARK": lambda _: self._drop_marked(),
            "DUP": lambda _: push(self._top()),
            "MEMOIZE": lambda _: self._put(len(self.memo)),
            "LIST": lambda _: push(self._pop_mark()),
            "TUPLE": lambda _: self._push_tuple(self._pop_mark()),
            "TUPLE1": lambda _: self._push_tuple([pop()]),
            "TUPLE2": lambda _: self._push_tuple([pop(), pop()][::-1]),
            "TUPLE3": lambda _: self._push_tuple([pop(), pop(), pop()][::-1]),
            "DICT": lambda _: push(_paired(self._pop_mark())),
            "FROZENSET": lambda _: push(frozenset(self._pop_mark())),
            "APPEND": lambda _: self._extend([pop()]),
            "APPENDS": lambda _: self._extend(self._pop_mark()),
            "SETITEM": lambda _: self._set_items([pop(), pop()][::-1]),
            "SETITEMS": lambda _: self._set_items(self._pop_mark()),
            "ADDITEMS": lambda _: self._add_items(self._pop_mark()),
            "GLOBAL": lambda names: push(self._find(*names.split(" ", 1))),
            "STACK_GLOBAL": lambda _: push(self._find(*[pop(), pop()][::-1])),
            "INST": self._instance,
            "REDUCE": lambda _: self._reduce(),
            "BUILD": lambda _: self._build(),
        }

    def run(self, data: bytes) -> Any:
        """Interpret the opcodes and return what is on the stack in the end."""
        position: int | None = 0
        for count, (opcode, argument, position) in enumerate(pickletools.genops(data)):  # noqa: B007
            if count > MAX_VALUES:
                raise ResultTooLargeError(f"it is a pickle of more than {MAX_VALUES:,} steps")
            handle = self.opcodes.get(opcode.name)
            if handle is None:
                self._refuse(f"the opcode {opcode.name}")
            handle(argument)
        rest = data[(position or 0) + 1 :].strip(b"\r\n")
        if rest:
            raise UndecodableResultError(f"it is a pickle followed by {len(rest)} more bytes")
        return self._pop()

    def _refuse(self, found: str) -> NoReturn:
        raise UnsafeResultError(
            f"it is a pickle that asks for {found}, which plain data does not need; nothing of it was executed. "
            "Only NumPy arrays and plain Python containers and scalars are decoded: "
            "let the algorithm write those, or JSON or CSV"
        )

    def _protocol(self, version: int) -> None:
        if version > 5:
            raise UndecodableResultError(f"it is a pickle of protocol {version}; 5 is the highest known")

    def _find(self, module: object, name: object) -> AllowedName:
        known = isinstance(module, str) and isinstance(name, str)
        found = self.factory.names.get((str(module), str(name))) if known else None
        if found is None:
            self._refuse(shown(f"{module}.{name}"))
        return found

    def _instance(self, names: str) -> NoReturn:
        self._find(*names.split(" ", 1))
        self._refuse("the opcode INST")

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, AllowedName) or type(arguments) is not tuple:
            self._refuse(f"a call of {shown(type(function).__name__)}")
        self.stack.append(function.build(*arguments))

    def _build(self) -> None:
        state, value = self._pop(), self._top()
        if not isinstance(value, PendingArray | PendingDtype):
            self._refuse(
                f"attributes on a value of type {shown(getattr(value, 'name', type(value).__name__))}"
            )
        value.set_state(state)

    def _put(self, key: int) -> None:
        self.memo[key] = self._top()

    def _push_tuple(self, items: list[Any]) -> None:
        # Hashing a tuple recurses in C without a limit, so the depth is known before one can become a key.
        depth = 1 + max(
            (self.tuple_depths.get(id(item), 0) for item in items if type(item) is tuple), default=0
        )
        if depth > MAX_DEPTH:
            raise UndecodableResultError(f"it is a pickle of tuples nested deeper than {MAX_DEPTH}")
        value = tuple(items)
        self.tuple_depths[id(value)] = depth
        self.stack.append(value)

    def _extend(self, items: list[Any]) -> None:
        self._expect(list).extend(items)

    def _add_items(self, items: list[Any]) -> None:
        self._expect(set).update(items)

    def _set_items(self, items: list[Any]) -> None:
        self._expect(dict, OrderedDict).update(_paired(items))

    def _expect(self, *kinds: type) -> Any:
        value = self._top()
        if type(value) not in kinds:
            self._refuse(f"a change of a value of type {shown(type(value).__name__)}")
        return value

    def _top(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise IndexError("the pickle uses a value that it did not make")
        return self.stack[-1]

    def _pop(self) -> Any:
        self._top()
        return self.stack.pop()

    def _drop(self) -> None:
        # POP takes a mark where one is on top, as pickle itself has it.
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self._pop()

    def _drop_marked(self) -> None:
        self._pop_mark()

    def _pop_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items


def _paired(items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise ValueError("a dictionary with a key that has no value")
    return dict(zip(items[::2], items[1::2], strict=True))
