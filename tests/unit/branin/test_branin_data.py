from __future__ import annotations

import math
import runpy
import sys

import pytest

from include.branin import data


def test_the_file_is_what_the_generator_makes():
    assert data.DATA_FILE.read_bytes() == data.arff().encode("ascii")


def test_running_the_module_writes_the_file(tmp_path, monkeypatch, capsys):
    copy = tmp_path / "data.py"
    copy.write_bytes((data.DATA_FILE.parent / "data.py").read_bytes())
    monkeypatch.setattr(sys, "argv", [str(copy)])

    runpy.run_path(str(copy), run_name="__main__")

    assert (tmp_path / "branin.arff").read_bytes() == data.DATA_FILE.read_bytes()
    assert "225 points" in capsys.readouterr().out


def test_other_readers_of_arff_understand_the_file():
    from scipy.io import arff

    with data.DATA_FILE.open() as stream:
        rows, description = arff.loadarff(stream)
    assert (description.names(), description.types()) == (["x0", "x1", "y"], ["numeric"] * 3)
    assert len(rows) == 225
    assert [tuple(row) for row in rows[[0, 1, 15, 224]]] == [
        (-5.0, 0.0, 308.1291),
        (-3.9286, 0.0, 206.1783),
        (-5.0, 1.0714, 272.447),
        (10.0, 15.0, 145.8722),
    ]


@pytest.mark.parametrize(("x0", "x1"), [(-math.pi, 12.275), (math.pi, 2.275), (9.42478, 2.475)])
def test_the_three_minima_of_the_function(x0, x1):
    assert data.branin(x0, x1) == pytest.approx(0.397887, abs=1e-5)


def test_rows_of_the_surface_are_x1_and_columns_are_x0():
    surface = data.surface()
    assert (len(surface), len(surface[0])) == (15, 15)
    assert surface[0][14] == data.branin(10.0, 0.0)
    assert surface[14][0] == data.branin(-5.0, 15.0)
