"""Results are hostile here: what is decoded may not run anything, take memory without limit, or bring Python down."""

from __future__ import annotations

import builtins
import collections
import ctypes
import datetime
import decimal
import functools
import hashlib
import io
import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.io import attach

from airflow_ocean.c2d.results import (
    ResultTooLargeError,
    UndecodableResultError,
    UnsafeResultError,
    artifact_name,
    decode_result,
    save_stream,
)

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def decode(data: bytes, **options):
    return decode_result(io.BytesIO(data), "result", **options)


def same(first, second) -> bool:
    """Compare values and types, arrays included."""
    if type(first) is not type(second):
        return False
    if isinstance(first, np.ndarray):
        if (first.dtype, first.shape) != (second.dtype, second.shape):
            return False
        if first.dtype == object:
            return all(map(same, first.flat, second.flat))
        return first.tobytes() == second.tobytes()
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    return first == second


# --- what has to be decoded ------------------------------------------------------------------------------------------

UTC = datetime.UTC
PLAIN = [
    None, True, 0, -5, 10**30, 1.5, float("inf"), 1 + 2j, "", "é€😀", "x" * 70000, b"", b"\x00\xff", b"y" * 300,
    bytearray(), bytearray(b"q"), [], [1, [2, {}]], (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {"a": {1: 2}}, set(),
    {1, 2}, frozenset([1, (2, 3)]), collections.OrderedDict(b=1, a=[2]), datetime.date(2026, 1, 2),
    datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), datetime.datetime(2026, 1, 2, fold=1), datetime.time(1, 2),
    datetime.timedelta(1, 2, 3), datetime.timezone(datetime.timedelta(hours=2), "x"), decimal.Decimal("1.50"),
    list(range(5000)), {str(number): number for number in range(3000)},
]  # fmt: skip
ARRAYS = [
    np.arange(225.0).reshape(15, 15), np.asfortranarray(np.arange(6).reshape(2, 3)), np.array(3.5), np.zeros((0, 3)),
    np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2), np.array([1, 2], ">f4"), np.array([True]), np.array([1j]),
    np.array(["a", "bcd"]), np.array([b"xy"]), np.array(["2026-01-02"], "M8[D]"), np.array([5], "m8[25us]"),
    np.array(["NaT"], "M8"), np.float16([1]), np.longdouble([1.5]), np.array([1, None, [2], np.ones(2)], dtype=object),
    np.array([[[1], {}], [set(), "x"]], dtype=object), np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", ">f8")]),
    np.array([(1, [2, 3])], dtype=[("a", "i4"), ("b", "f8", (2,))]), np.zeros(1, [("a", [("b", "i1")])]),
    np.float64(1.5), np.int32(-3), np.bool_(True), np.str_("abc"), np.bytes_(b"ab"), np.datetime64(1, "ns"),
    np.dtype("f8"), {"model": [np.ones(2), (np.int8(1), {"deep": np.zeros(1)})]},
]  # fmt: skip


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("value", PLAIN + ARRAYS, ids=lambda value: f"{type(value).__name__}-{value!r:.20}")
def test_plain_pickles_of_every_protocol_are_decoded(value, protocol):
    result = decode(pickle.dumps(value, protocol))

    assert result.kind == "pickle"
    assert same(result.value, value), result.value


@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_arrays_of_numpy_1_and_2_are_decoded(core):
    array = np.arange(225.0).reshape(15, 15)
    for protocol in (2, 3):  # earlier than 4 nothing counts the bytes of a name
        ours = pickle.dumps([array, np.float64(2)], protocol)
        assert b"numpy._core.multiarray" in ours
        value = decode(ours.replace(b"numpy._core", core)).value
        assert same(value, [array, np.float64(2)])


def test_arrays_can_be_written_to_and_shared_values_stay_shared():
    array = np.arange(3)
    for protocol in PROTOCOLS:
        first, second = decode(pickle.dumps([array, array], protocol)).value
        assert first is second
        first[0] = 7


def npz(**arrays) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def npy(array, **options) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "kind", "value"),
    [
        (npy(np.ones((2, 3))), "npy", np.ones((2, 3))),
        (npy(np.zeros((0, 3), "i2")), "npy", np.zeros((0, 3), "i2")),
        (npz(a=np.ones(2), b=np.arange(3)), "npz", {"a": np.ones(2), "b": np.arange(3)}),
        (b'{"a": [1, 2.5, null]}', "json", {"a": [1, 2.5, None]}),
        (b" [1, 2]\n", "json", [1, 2]),
        (b"3.5", "json", 3.5),
        (b"null", "json", None),
        ("\ufeff[1]".encode(), "json", [1]),
        (b"x0,x1\n1,2\n3,4\n", "csv", [["x0", "x1"], ["1", "2"], ["3", "4"]]),
        (b'a;"b;c"\r\n1;2\r\n', "csv", [["a", "b;c"], ["1", "2"]]),
        (b"1\t2\n3\t4", "csv", [["1", "2"], ["3", "4"]]),
        (b"1.5\n-2e3\n", "csv", [["1.5"], ["-2e3"]]),
        (b"2.\n3.", "csv", [["2."], ["3."]]),
        ("Die Flüsse, sagte er.\nNichts weiter.".encode(), "text", "Die Flüsse, sagte er.\nNichts weiter."),
        (b"{not json", "text", "{not json"),
        (b'a,"b\n1,2', "text", 'a,"b\n1,2'),
        (b"I said so.", "text", "I said so."),
    ],
)
def test_other_kinds_are_recognised_by_their_content(data, kind, value):
    result = decode(data)
    assert result.kind == kind
    assert same(result.value, value)


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (b"\x89PNG\r\n\x1a\nrest", "image/png"),
        (b"\xff\xd8\xff\xe0rest", "image/jpeg"),
        (b"GIF89arest", "image/gif"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
    ],
)
def test_images_are_handed_on_as_they_are(data, media_type):
    result = decode(data)
    assert (result.kind, result.media_type, result.value) == ("image", media_type, data)


def test_a_name_decides_nothing(tmp_path):
    (tmp_path / "plot.png").write_bytes(pickle.dumps([1]))
    assert decode_result(tmp_path / "plot.png", "plot.png").kind == "pickle"
    assert decode_result(ObjectStoragePath(f"file://{tmp_path}/plot.png"), "data.csv").kind == "pickle"


# --- what must not run -----------------------------------------------------------------------------------------------

CODE = "open({!r}, 'w').close()"


class Reduce:
    """Pickles as a call of a function, with a state or items if wanted."""

    def __init__(self, *parts) -> None:
        self.parts = parts

    def __reduce__(self):
        return self.parts


class Plain:
    """An ordinary object."""


def hostile(trace: str) -> dict[str, tuple[object, str]]:
    code = CODE.format(trace)
    opened = functools.partial(open, trace, "w")
    return {
        "os.system": (Reduce(os.system, (f"touch {trace}",)), f"{os.name}.system"),
        "eval": (Reduce(eval, (code,)), "builtins.eval"),
        "exec": (Reduce(exec, (code,)), "builtins.exec"),
        "open": (Reduce(open, (trace, "w")), "io.open"),
        "subprocess": (Reduce(subprocess.Popen, (["touch", trace],)), "Popen"),
        "getattr": (Reduce(getattr, ([], "append")), "builtins.getattr"),
        "__import__": (Reduce(__import__, ("antigravity",)), "builtins.__import__"),
        "partial": (opened, "functools.partial"),
        "ctypes": (Reduce(ctypes.CDLL, ("libc.so.6",)), "ctypes.CDLL"),
        "path": (Path(trace), "pathlib"),
        "object": (Plain(), "tests.unit.c2d.test_results.Plain"),
        "class": (Plain, "tests.unit.c2d.test_results.Plain"),
        "nested in a list": ([1, {"a": (Reduce(eval, (code,)),)}], "builtins.eval"),
        "nested in an array": (np.array([Reduce(eval, (code,))], dtype=object), "builtins.eval"),
        "in a set's argument": (Reduce(set, ([Reduce(eval, (code,))],)), "builtins.eval"),
        "in a key": ({Reduce(eval, (code,)): 1}, "builtins.eval"),
        "numpy function": (Reduce(np.load, (trace,)), "numpy"),
        "numpy matrix": (np.asmatrix([[1]]), "numpy.matrix"),
        "masked array": (np.ma.array([1], mask=[1]), "numpy.ma"),
        "range": (range(10), "range"),
        "a function itself": (builtins.print, "builtins.print"),
        "defaultdict": (collections.defaultdict(list), "collections.defaultdict"),
    }


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # numpy.matrix
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("case", hostile("x"))
def test_a_pickle_that_calls_something_is_refused_and_not_run(case, protocol, tmp_path):
    trace = tmp_path / "it ran"
    payload, named = hostile(str(trace))[case]
    data = pickle.dumps(payload, protocol)
    if protocol < 3:  # Python 2's names of the same modules
        named = named.replace("builtins.", "__builtin__.").replace("io.open", "open")
        if protocol < 2 and type(payload) is Plain:
            named = "copy_reg._reconstructor"
    with pytest.raises(UnsafeResultError) as caught:
        decode(data)

    assert named in str(caught.value)
    assert "nothing of it was executed" in str(caught.value)
    assert not trace.exists()


def global_(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


ARRAY = (
    global_("numpy._core.multiarray", "_reconstruct") + global_("numpy", "ndarray") + b"(K\x00tC\x01b\x87R"
)
OBJECT_DTYPE = global_("numpy", "dtype") + b"(X\x02\x00\x00\x00O8tR"
FLOAT_DTYPE = global_("numpy", "dtype") + b"(X\x02\x00\x00\x00f8tR"


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"cos\nsystem\n(S'touch x'\ntR.", "os.system"),
        (b"(S'touch x'\nios\nsystem\n.", "os.system"),
        (b"(cos\nsystem\nS'touch x'\no.", "os.system"),
        (b"(K\x01icollections\nOrderedDict\n.", "opcode INST"),
        (b"(ccollections\nOrderedDict\no.", "opcode OBJ"),
        (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "opcode NEWOBJ"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "os.system"),
        (b"\x80\x04\x8c\x08builtins\x8c\x0deval.__call__\x93.", "builtins.eval.__call__"),
        (b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.", "numpy.ndarray.__init__"),
        (b"\x80\x04\x8c\x07os\x1b[31m\x8c\x06system\x93.", r"os\x1b[31m.system"),
        (b"\x80\x04K\x01K\x02\x93.", "1.2"),
        (b"\x80\x02\x82\x01.", "opcode EXT1"),
        (b"\x80\x02\x83\x01\x00.", "opcode EXT2"),
        (b"\x80\x02\x84\x01\x00\x00\x00.", "opcode EXT4"),
        (b"\x80\x02K\x01Q.", "opcode BINPERSID"),
        (b"Pabc\n.", "opcode PERSID"),
        (b"\x80\x05\x97.", "opcode NEXT_BUFFER"),
        (b"\x80\x05C\x01a\x98.", "opcode READONLY_BUFFER"),
        (b"\x80\x02" + global_("numpy", "ndarray") + b".", "numpy.ndarray itself"),
        (b"\x80\x02]" + global_("builtins", "set") + b"a.", "builtins.set itself"),
        # Attributes set on what is allowed would change it for everyone.
        (b"\x80\x02" + global_("collections", "OrderedDict") + b"}X\x01\x00\x00\x00aK\x01sb.", "OrderedDict"),
        (
            b"\x80\x02" + global_("collections", "OrderedDict") + b")R}X\x01\x00\x00\x00aK\x01sb.",
            "OrderedDict",
        ),
        (b"\x80\x02" + global_("builtins", "set") + b"K\x01a.", "a change of a value of type"),
        (b"\x80\x02X\x01\x00\x00\x00aK\x01K\x02s.", "a change of a value of type"),
        (b"\x80\x02K\x01)R.", "a call of"),
        (b"\x80\x02" + global_("builtins", "set") + b"]R.", "a call of"),
    ],
)
def test_hand_made_opcodes_are_refused_by_name(data, named):
    with pytest.raises(UnsafeResultError) as caught:
        decode(data)
    assert named in str(caught.value)
    assert "\x1b" not in str(caught.value)


BIG = b"\x8a\x08" + struct.pack("<q", 10**12)


@pytest.mark.parametrize(
    "data",
    [
        # An empty array of a trillion bytes; by state; by class; of things of no size.
        b"\x80\x03" + global_("numpy._core.multiarray", "_reconstruct") + global_("numpy", "ndarray") + BIG + b"\x85C\x01b\x87R.",
        b"\x80\x03" + ARRAY + b"(K\x01" + BIG + b"\x85" + FLOAT_DTYPE + b"\x89C\x00tb.",
        b"\x80\x03" + global_("numpy", "ndarray") + BIG + b"\x85R.",
        b"\x80\x03" + ARRAY + b"(K\x01" + BIG + b"\x85" + FLOAT_DTYPE.replace(b"f8", b"S0") + b"\x89C\x00tb.",
        # NumPy would read a hundred thousand objects from a list of one.
        b"\x80\x03" + ARRAY + b"(K\x01J\xa0\x86\x01\x00\x85" + OBJECT_DTYPE + b"\x89]K\x01atb.",
        # The address of an object, made of numbers.
        b"\x80\x05" + global_("numpy._core.numeric", "_frombuffer") + b"(C\x08" + b"A" * 8 + OBJECT_DTYPE + b"K\x01\x85X\x01\x00\x00\x00CtR.",
        b"\x80\x03" + global_("numpy._core.multiarray", "scalar") + b"(" + OBJECT_DTYPE + b"C\x08" + b"A" * 8 + b"tR.",
        b"\x80\x03" + ARRAY + b"(K\x01J\xff\xff\xff\xff\x85" + FLOAT_DTYPE + b"\x89C\x00tb.",
        b"\x80\x03" + ARRAY + b"(K\x01K\x01\x85" + FLOAT_DTYPE + b"\x89C\x04aaaatb.",
        # A bytearray, bytes, text that are not there; a memo place that would take gigabytes.
        b"\x80\x05\x96" + struct.pack("<Q", 10**12) + b".",
        b"\x80\x04\x8e" + struct.pack("<Q", 10**12) + b".",
        b"\x80\x04\x8d" + struct.pack("<Q", 2**64 - 1) + b".",
        b"\x80\x03" + global_("builtins", "bytearray") + BIG + b"\x85R.",
        b"\x80\x03" + global_("builtins", "bytes") + BIG + b"\x85R.",
        # Nested until the C stack ends: as a key, as lists, as itself; records within records.
        b"\x80\x04})" + b"\x85" * 1_500_000 + b"K\x01s.",
        b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".",
        b"\x80\x04]\x94h\x00a.",
        b"\x80\x04" + ARRAY + b"\x94(K\x01K\x01\x85" + OBJECT_DTYPE + b"\x89]h\x00atb.",
        # Truncated, or followed by something, or of no protocol, or using what is not there.
        b"\x80\x04",
        b"\x80",
        b"\x80\x04]",
        pickle.dumps(np.arange(9))[:-20],
        pickle.dumps([1]) + b"more",
        b"\x80\x0f].",
        b"\x80\x04.",
        b"\x80\x04(.",
        b"\x80\x04h\x07.",
        b"\x80\x04(K\x01(\x86.",
        b"\x80\x04}(K\x01u.",
        b"\x80\x04}]K\x01s.",
        b"\x80\x03" + global_("numpy", "dtype") + b"(X\x03\x00\x00\x00f8,tR.",
        b"\x80\x03" + global_("decimal", "Decimal") + b"X\x03\x00\x00\x00one\x85R.",
        b"\x80\x03" + global_("datetime", "datetime") + b"C\x0a\x07\xea\x01\x01\xff\xff\xff\x00\x00\x00\x85R.",
        b"\x80\x03" + global_("_codecs", "encode") + b"X\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R.",
        b"\x00\x01\x02\x03",
        b"",
        b"caf\xe9",
        b"a\x00b",
        b"%PDF-1.4\xff",
        b'{"a":' * 100_000,
        b"[" * 100_000,
        npy(np.ones(9))[:-1],
        npy(np.ones(9)) + b"x",
        npy(np.ones(9)).replace(b"(9,)", b"(9999999999999,)"),
        npy(np.ones(9)).replace(b"(9,), }" + b" " * 9, b"(-9,-1,)}" + b" " * 7),
        npy(np.ones(9)).replace(b"'<f8'", b"'<q9'"),
        b"\x93NUMPY\x01\x00\x10\x27" + b"(" * 10_000,
        b"\x93NUMPY\x01\x00\x10\x27" + b"-" * 9_999 + b"1",
        b"\x93NUMPY\x01\x00\x10\x27" + b"[" * 100 + b"1" + b"+1" * 4900,
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff{",
        b"\x93NUMPY",
        npz(a=np.ones(99))[:-9],
        npz(a=np.ones(99))[:60],
        b"PK\x03\x04",
    ],
    ids=str,
)  # fmt: skip
def test_damaged_and_oversized_files_end_in_a_clear_error(data):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UndecodableResultError, match=r"^Result 'result' was not decoded: it is "):
        decode(data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


def zipped(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def lying(data: bytes, size: int) -> bytes:
    """Return a zip archive whose directory says that its members are small."""
    return data.replace(struct.pack("<I", size), struct.pack("<I", 200))


BOMB = npy(np.zeros(4_000_000))
# Lists of twenty lists of twenty lists ...: a hundred bytes stand for billions of values.
LAUGHS = b"\x80\x04](K\x01" + b"K\x01" * 19 + b"e\x94" + b"".join(
    b"](" + b"h" + bytes([level]) + (b"h" + bytes([level])) * 19 + b"e\x94" for level in range(12)
) + b"."  # fmt: skip
COPIES = (
    b"\x80\x03X" + struct.pack("<I", 500_000) + b"a" * 500_000 + b"\x94X\x06\x00\x00\x00latin1\x940]"
    + b"".join(global_("_codecs", "encode") + b"h\x00h\x01\x86Ra" for _ in range(50)) + b"."
)  # fmt: skip


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"x" * 1_000_001, "larger than the 1,000,000 bytes allowed"),
        (zipped(**{"a.npy": BOMB}), "unpacks to 32,000,128 bytes; 1,000,000 are allowed"),
        (zipped(**{f"{number}.npy": BOMB[:900_000] for number in range(2)}), "unpacks to 1,800,000 bytes"),
        (zipped(**{f"{number}.npy": b"" for number in range(1001)}), "more than 1000 files"),
        (LAUGHS, "stands for more than 2,000,000 values"),
        (COPIES, "take more than the 1,000,000 bytes allowed"),
    ],
    ids=["size", "zip", "zips", "members", "laughs", "copies"],
)
def test_what_would_become_too_large_is_not_unpacked(data, message):
    with pytest.raises(ResultTooLargeError, match=message):
        decode(data, max_bytes=1_000_000)


@pytest.mark.parametrize(
    "data", [b"[" + b"[]," * 2_100_000 + b"1]", b"1,2\n" * 1_100_000, b"\x80\x04" + b"]0" * 1_100_000 + b"N."]
)
def test_too_many_values_are_refused(data):
    with pytest.raises(ResultTooLargeError, match="more than 2,000,000"):
        decode(data)


def test_a_zip_member_that_lies_about_its_size_is_not_unpacked():
    data = lying(zipped(**{"a.npy": BOMB}), len(BOMB))
    with pytest.raises(UndecodableResultError, match="damaged"):
        decode(data, max_bytes=1_000_000)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (zipped(**{"a.txt": b"x"}), "not one of .npy files alone"),
        (zipped(), "no pickle"),  # an empty archive has another mark
        (zipped(**{"a.npy": b"nonsense"}), "damaged"),
    ],
)
def test_other_archives_are_refused(data, message):
    with pytest.raises(UndecodableResultError, match=message):
        decode(data)


@pytest.mark.parametrize("wrap", [bytes, lambda content: zipped(**{"a.npy": content})])
def test_pickles_inside_npy_files_are_refused(wrap, tmp_path):
    trace = tmp_path / "it ran"
    payload = np.array([Reduce(eval, (CODE.format(str(trace)),))], dtype=object)
    with pytest.raises(UnsafeResultError, match="Python objects"):
        decode(wrap(npy(payload, allow_pickle=True)))
    assert not trace.exists()


def test_every_truncation_of_a_pickle_is_an_error_or_plain_text():
    for protocol in PROTOCOLS:
        data = pickle.dumps({"a": np.arange(4.0), "b": [1, "x", (2.5, None)]}, protocol)
        for length in range(1, len(data)):
            try:
                assert decode(data[:length]).kind in ("text", "csv", "json")
                assert protocol < 2  # they have no mark to be known by
            except UndecodableResultError:
                pass


def test_every_changed_byte_of_a_pickle_is_an_error_or_plain_data():
    data = pickle.dumps({"a": np.arange(4.0), "b": {1, "x"}, "c": datetime.date(2026, 1, 2)}, 4)
    outcomes = set()
    for place in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            try:
                outcomes.add(decode(bytes(changed)).kind)
            except (UnsafeResultError, UndecodableResultError, ResultTooLargeError) as error:
                outcomes.add(type(error).__name__)
    assert outcomes >= {"pickle", "UnsafeResultError", "UndecodableResultError"}


def test_the_name_in_an_error_cannot_write_to_the_terminal():
    with pytest.raises(UndecodableResultError) as caught:
        decode_result(io.BytesIO(b""), "\x1b[31m\n" + "x" * 500)
    assert str(caught.value).startswith(r"Result '\x1b[31m\nxxx")
    assert len(str(caught.value)) < 200


# --- saving ----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["path", "object storage", "memory"])
def folder(request, tmp_path):
    """A folder of each kind of store; the last one has no folders and no rename of its own, as S3 has none."""
    attach(protocol="memory", fs=fsspec.filesystem("memory"))
    return {
        "path": tmp_path / "a b",
        "object storage": ObjectStoragePath(f"file://{tmp_path}/a b"),
        "memory": ObjectStoragePath(f"memory://bucket/{tmp_path.name}"),
    }[request.param]


def names(folder) -> list[str]:
    # In an object storage there is no empty folder.
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize(
    ("interval", "told"), [(0.0, ["'result': 0.3 MB until now", "'result': 0.5 MB until now"]), (60.0, [])]
)
def test_a_long_download_says_how_far_it_is(tmp_path, monkeypatch, caplog, interval, told):
    monkeypatch.setattr("airflow_ocean.c2d.results.NEWS_INTERVAL", interval)
    with caplog.at_level("INFO"):
        save_stream([b"x" * 300_000, b"x" * 200_000], tmp_path / "result", 1_000_000)
    assert [record.getMessage() for record in caplog.records] == told


def test_a_stream_is_saved_with_size_and_hash(folder):
    target = folder / "run" / "0-result.bin"

    saved = save_stream(iter([b"abc", b"", b"def"]), target, 6)

    assert (saved.name, saved.size) == ("0-result.bin", 6)
    assert saved.sha256 == hashlib.sha256(b"abcdef").hexdigest()
    assert saved.uri == str(target)
    assert target.read_bytes() == b"abcdef"
    assert names(folder / "run") == ["0-result.bin"]


def test_saving_again_replaces_the_file(folder):
    save_stream([b"a long first version"], folder / "result", 100)
    assert save_stream([b"second"], folder / "result", 100).size == 6
    assert (folder / "result").read_bytes() == b"second"
    assert save_stream([], folder / "result", 100).size == 0
    assert names(folder) == ["result"]


def test_signs_of_patterns_in_a_name_are_no_patterns(tmp_path):
    (tmp_path / ".1.x.part").write_bytes(b"of another result")
    save_stream([b"x"], tmp_path / "[12]", 1)
    assert names(tmp_path) == [".1.x.part", "[12]"]


def test_too_much_leaves_nothing_and_ends_the_download(folder):
    ended = []

    def endless():
        try:
            while True:
                yield b"x" * 1000
        finally:
            ended.append(True)

    chunks = endless()
    with pytest.raises(ResultTooLargeError, match="'result' is larger than the 5,000 bytes allowed"):
        save_stream(chunks, folder / "result", 5000)
    assert ended
    assert names(folder) == []


@pytest.mark.parametrize("error", [ConnectionError, KeyboardInterrupt])
def test_a_broken_download_keeps_what_was_there(folder, error):
    save_stream([b"first"], folder / "result", 100)

    def broken():
        yield b"half of the second"
        raise error

    with pytest.raises(error):
        save_stream(broken(), folder / "result", 100)
    assert (folder / "result").read_bytes() == b"first"
    assert names(folder) == ["result"]


def test_what_a_killed_process_left_is_removed_by_the_next_attempt(tmp_path):
    script = (
        "import os, pathlib, signal, sys\n"
        "from airflow_ocean.c2d.results import save_stream\n"
        "def chunks():\n"
        "    yield b'half'\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "save_stream(chunks(), pathlib.Path(sys.argv[1]) / 'result', 100)\n"
    )
    (tmp_path / ".other.1.part").write_bytes(b"of another result")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script, tmp_path], check=False, env=environment)
    assert done.returncode == -9
    assert not (tmp_path / "result").exists()
    assert len(names(tmp_path)) == 2

    save_stream([b"whole"], tmp_path / "result", 100)

    assert names(tmp_path) == [".other.1.part", "result"]


def test_a_large_stream_is_never_whole_in_memory(tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    saved = save_stream((b"\0" * 1_000_000 for _ in range(800)), tmp_path / "result", 10**9)
    assert saved.size == 800_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB
    (tmp_path / "result").unlink()


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("untrusted", "name"),
    [
        ("result", "3-result"),
        ("model v2.final.pkl", "3-model_v2.final.pkl"),
        ("../../etc/passwd", "3-passwd"),
        ("/etc/passwd", "3-passwd"),
        ("C:\\Windows\\system32\\x.dll", "3-x.dll"),
        ("..\\..\\x", "3-x"),
        ("outputs/", "3-outputs"),
        ("..", "3-unnamed"),
        (".", "3-unnamed"),
        ("", "3-unnamed"),
        ("/", "3-unnamed"),
        ("...", "3-unnamed"),
        ("a..b", "3-a.b"),
        (".bashrc", "3-bashrc"),
        ("-rf", "3-rf"),
        ("a\0b\nc\x1b[31m", "3-a_b_c_31m"),
        ("x.txt ", "3-x.txt"),
        ("CON", "3-CON"),
        ("nul.txt", "3-nul.txt"),
        ("<script>alert(1)</script>", "3-script"),
        ('"><img src=x onerror=alert(1)>.png', "3-img_src_x_onerror_alert_1_.png"),
        ("%2e%2e%2fx?y#z", "3-2e_2e_2fx_y_z"),
        ("résumé 数据.csv", "3-résumé_数据.csv"),
        ("\uff0e\uff0e\uff0fx", "3-x"),
        ("a\u202egnp.exe", "3-a_gnp.exe"),
        ("\ud800x", "3-x"),
        ("😀", "3-unnamed"),
        ("x" * 500 + ".csv", "3-" + "x" * 116 + ".csv"),
        ("x." + "y" * 500, "3-x." + "y" * 118),
    ],
)
def test_names_from_outside_become_safe_ones(untrusted, name):
    assert artifact_name(untrusted, 3) == name


def test_no_name_leaves_its_folder_or_is_too_long_for_it(tmp_path):
    signs = [
        "/",
        "\\",
        ".",
        "..",
        "\0",
        "\n",
        "a",
        "é",
        "\uff0f",
        "\u2215",
        "~",
        "$",
        "%",
        "|",
        "数" * 90,
        " ",
        "\ud800",
    ]
    for index, untrusted in enumerate(
        first + second + third for first in signs for second in signs for third in signs
    ):
        name = artifact_name(untrusted, index)
        (tmp_path / name).touch()
        assert (tmp_path / name).resolve().parent == tmp_path.resolve()
    assert len(list(tmp_path.iterdir())) == len(signs) ** 3


def test_names_are_json_and_url_safe_text():
    name = artifact_name("\ud800😀é", 0)
    assert json.loads(json.dumps(name)).encode() == name.encode()
