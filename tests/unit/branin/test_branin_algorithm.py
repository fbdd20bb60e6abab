"""The algorithm, run as compute environments run it: told by environment variables and folders only."""

from __future__ import annotations

import ast
import io
import json
import os
import pickletools
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, NamedTuple
from unittest import mock

import numpy as np
import pytest

from airflow_ocean.c2d.results import decode_result
from include.branin import algorithm, data

if TYPE_CHECKING:
    from pathlib import Path

ALGORITHM = data.DATA_FILE.with_name("algorithm.py")
DID = "7ac8b6d2c1"


class Outcome(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


class Environment:
    """The folders of one job."""

    def __init__(self, root: Path) -> None:
        self.inputs = root / "data" / "inputs"
        self.outputs = root / "data" / "outputs"
        self.result = self.outputs / "result"
        self.inputs.mkdir(parents=True)
        self.outputs.mkdir()
        self.variables = {"VOLUME": str(root / "data")}

    def add(self, place: str, content: str | None = None) -> None:
        file = self.inputs / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(data.arff() if content is None else content)

    def custom(self, settings: object) -> None:
        self.add("algoCustomData.json", settings if isinstance(settings, str) else json.dumps(settings))

    def run(self, **variables: str) -> Outcome:
        """Run it in this process: most tests need no other."""
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, {**self.variables, **variables}, clear=True),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            code = algorithm.main()
        return Outcome(code, out.getvalue(), err.getvalue())

    def start(self, **variables: str) -> Outcome:
        """Run it as a process of its own, in the root folder, with no other environment."""
        done = subprocess.run(
            [sys.executable, ALGORITHM],
            env={"PATH": os.environ["PATH"], "HOME": "/", **self.variables, **variables},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=120,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def predictions(self) -> np.ndarray:
        return decode_result(self.result).value


@pytest.fixture
def job(tmp_path):
    return Environment(tmp_path)


def test_the_layout_of_operator_service(job):
    job.add(f"{DID}/0")
    job.add("ignored", "not asked for by DIDS")

    done = job.start(
        DIDS=json.dumps([DID]),
        INPUTS=str(job.inputs),
        OUTPUTS=str(job.outputs),
        TRANSFORMATION_DID="0ff1ce",
        VOLUME="/data",
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "read 225 rows" in done.stdout
    assert "on the other 185 rows: RMSE" in done.stdout
    assert [file.name for file in job.outputs.iterdir()] == ["result"]
    predictions = job.predictions()
    assert (predictions.shape, predictions.dtype) == ((15, 15), np.float64)
    assert np.abs(predictions - np.array(data.surface())).max() < 3


def test_the_layout_of_ocean_node(job):
    job.add("branin.arff")
    job.custom({"points": 30})

    done = job.start()

    assert done.returncode == 0, done.stderr
    assert "learned from 30 of 225 rows" in done.stdout
    assert job.predictions().shape == (15, 15)


def test_several_data_sets_and_files_are_read_together_in_order(job):
    text = data.arff()
    header, rows = text[: text.index("@data") + 6], text[text.index("@data") + 6 :].splitlines(keepends=True)
    for place, part in (
        ("aa/0", rows[:50]),
        ("aa/2", rows[50:100]),
        ("aa/10", rows[100:150]),
        ("bb/0", rows[150:]),
    ):
        job.add(place, header + "".join(part))

    done = job.run(DIDS='["did:op:aa", "bb"]')
    together = job.predictions()
    for folder in ("aa", "bb"):
        shutil.rmtree(job.inputs / folder)
    job.add("cc/0")
    alone = job.run(DIDS='["cc"]')

    assert (done.returncode, alone.returncode) == (0, 0), done.stderr + alone.stderr
    assert done.stdout.index("aa/2") < done.stdout.index("aa/10") < done.stdout.index("bb/0")
    assert np.array_equal(together, job.predictions())


def test_custom_data_chooses_the_model(job):
    job.add(f"{DID}/0")
    results = []
    for settings in (
        {},
        {"seed": 1},
        {"kernel": "matern"},
        {"points": 225, "noise": 0},
        json.dumps(json.dumps({"seed": 1})),  # quoted twice, as some clients send it
    ):
        job.custom(settings)
        done = job.run(DIDS=f'["{DID}"]')
        assert done.returncode == 0, done.stderr
        results.append(job.predictions().tobytes())
    assert results[4] == results[1]
    assert len(set(results)) == 4


@pytest.mark.parametrize("text", ["", "null", '""', "{}"])
def test_empty_custom_data_means_the_defaults(job, text):
    job.add("branin.arff")
    job.custom(text)
    done = job.run()
    assert done.returncode == 0, done.stderr
    assert "learned from 40 of 225 rows" in done.stdout


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel": "linear"}, 'kernel should be "rbf" or "matern", not \'linear\''),
        ({"kernel": ["rbf"]}, "kernel should be"),
        ({"points": 4}, "points should be a whole number from 5 to 1000, not 4"),
        ({"points": 226}, "points is 226, but the data has 225 rows"),
        ({"points": 40.5}, "points should be a whole number"),
        ({"points": True}, "points should be a whole number"),
        ({"points": "40"}, "points should be a whole number"),
        ({"points": 10**30}, "points should be a whole number"),
        ({"seed": -1}, "seed should be a whole number from 0 to 4294967295, not -1"),
        ({"noise": -0.1}, "noise should be a number from 0 to 1000000, not -0.1"),
        ('{"noise": NaN}', "noise should be a number"),
        ({"noise": None}, "noise should be a number"),
        (
            {"kernels": "rbf", "zeal": 1},
            "unknown custom data kernels, zeal; known are kernel, noise, points, seed",
        ),
        ([1], "should hold a JSON object, not [1]"),
        ("{", "algoCustomData.json is not JSON"),
        ('"{"', "algoCustomData.json is not JSON"),
        (b"\xff".decode("latin-1"), "algoCustomData.json is not JSON"),
    ],
)
def test_wrong_custom_data_is_explained(job, settings, message):
    job.add("branin.arff")
    job.custom(settings)

    done = job.run()

    assert done.returncode == 1
    assert done.stderr.startswith("ERROR: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(job.outputs.iterdir()) == []


ROW = "@relation r\n@attribute x0 numeric\n@attribute x1 numeric\n@attribute y numeric\n@data\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "it ends before its header does"),
        ("<html>404: Not Found</html>", "is not an ARFF file of numbers"),
        (ROW, "has no rows"),
        (ROW + "1,2\n", "is not an ARFF file of numbers"),
        (ROW + "1,2,three\n", "is not an ARFF file of numbers"),
        (ROW + "1,2,3\n1,2,?\n", "missing or infinite value in row 2"),
        (ROW.replace("x1", "x2") + "1,2,3\n", "has no column x1; it has x0, x2, y"),
        (ROW.replace("x1 numeric", "x1 string") + "1,a,3\n", "is not an ARFF file of numbers"),
        (ROW.replace("x1 numeric", "x1 {a,b}") + "1,a,3\n", "holds something that is no number"),
        (ROW + "1,2,3\n" * 40, "y is 3.0 in every row: there is nothing to learn"),
        (ROW + "1,2,3\n" * 39, "points is 40, but the data has 39 rows"),
        ("\0\1\2" * 99, "is not an ARFF file of numbers"),
    ],
)
def test_wrong_data_is_explained(job, content, message):
    job.add("branin.arff", content)

    done = job.run()

    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not job.result.exists()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"DIDS": '["aa"]'}, "the data of aa is missing: no file {inputs}/aa/0; {inputs} holds bb, bb/0"),
        ({"DIDS": '["bb", "aa"]'}, "the data of aa is missing"),
        ({"DIDS": "aa"}, "DIDS is not JSON: 'aa'"),
        ({"DIDS": '{"aa": 1}'}, "DIDS should be a JSON list of strings"),
        ({"DIDS": "[1]"}, "DIDS should be a JSON list of strings"),
        ({"INPUTS": "/nowhere/inputs"}, "there is no folder of inputs at /nowhere/inputs"),
        ({"TRANSFORMATION_DID": "did:op:bb"}, "no data: DIDS is not set and there is no file in {inputs}"),
        ({"DIDS": '["bb"]', "OUTPUTS": "/proc/none"}, "cannot write the result to /proc/none/result"),
    ],
)
def test_missing_inputs_and_outputs_are_named(job, variables, message):
    job.add("bb/0")

    done = job.run(**variables)

    assert done.returncode == 1
    assert message.format(inputs=job.inputs) in done.stderr
    assert "Traceback" not in done.stderr


def test_the_source_is_python_3_7_and_needs_only_what_the_image_has():
    tree = ast.parse(ALGORITHM.read_text(), feature_version=(3, 7))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported - sys.stdlib_module_names == {"numpy", "scipy", "sklearn"}


def test_the_result_is_a_pickle_that_python_3_7_and_today_read(job):
    job.add("branin.arff")
    assert job.run().returncode == 0
    protocols = [
        argument
        for opcode, argument, _ in pickletools.genops(io.BytesIO(job.result.read_bytes()))
        if opcode.name == "PROTO"
    ]
    assert protocols == [4]
