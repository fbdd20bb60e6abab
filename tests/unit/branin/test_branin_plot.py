from __future__ import annotations

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from include.branin.data import surface
from include.branin.plot import fit_figures, plot_several, plot_surface

TRUTH = np.array(surface())


def drawn(predictions, **options) -> Image.Image:
    stream = io.BytesIO()
    plot_surface(predictions, stream, **options)
    return Image.open(stream)


def test_the_picture_is_a_png_of_the_size_asked_for():
    picture = drawn(TRUTH)
    assert (picture.format, picture.size) == ("PNG", (1200, 800))
    assert drawn(TRUTH, width=600).size == (600, 400)


def test_the_picture_shows_what_it_is_given():
    pictures = [
        drawn(TRUTH).tobytes(),
        drawn(TRUTH + np.linspace(0, 90, 225).reshape(15, 15)).tobytes(),
        drawn(TRUTH, title="Another title").tobytes(),
        drawn(TRUTH, subtitle="manual__2026-01-01").tobytes(),
    ]
    assert len(set(pictures)) == 4


def test_a_perfect_and_an_imperfect_model():
    perfect = fit_figures(surface())
    assert (perfect.rmse, perfect.max_error, perfect.r2) == (0, 0, 1)

    wrong = TRUTH.copy()
    wrong[3, 4] -= 30
    figures = fit_figures(wrong)
    assert figures.rmse == pytest.approx(2)
    assert figures.max_error == pytest.approx(30)
    assert figures.r2 == pytest.approx(1 - 900 / ((TRUTH - TRUTH.mean()) ** 2).sum())
    assert fit_figures(np.full((15, 15), TRUTH.mean())).r2 == pytest.approx(0)


def test_it_writes_a_file_and_returns_the_figures(tmp_path):
    target = tmp_path / "plot.png"
    assert plot_surface(TRUTH + 1, target).rmse == pytest.approx(1)
    assert target.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "title", ["$\\frac{1}{", "a\nb\tc" * 100, "<script>alert(1)</script>", "", "100 % _x_ \\ ^ { } \u202e"]
)
def test_any_title_is_drawn_as_it_is(title):
    assert drawn(TRUTH, title=title, subtitle=title, width=300).size == (300, 200)


@pytest.mark.parametrize(
    "predictions",
    [
        TRUTH.tolist(),
        TRUTH.astype(">f4"),
        TRUTH.astype(int),
        np.zeros((15, 15)),
        TRUTH * 1e12,
        [["1.5"] * 15] * 15,
    ],
)
def test_every_kind_of_numbers_is_drawn(predictions):
    assert drawn(predictions, width=300).format == "PNG"


WITH_NAN = TRUTH.copy()
WITH_NAN[2, 7] = np.nan
WITH_NAN[9, 9] = np.inf


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        (TRUTH[:14], r"not an array of shape \(14, 15\)"),
        (TRUTH.ravel(), r"not an array of shape \(225,\)"),
        (np.zeros((15, 15, 3)), r"not an array of shape \(15, 15, 3\)"),
        (7.0, r"not an array of shape \(\)"),
        ([], r"not an array of shape \(0,\)"),
        (WITH_NAN, r"2 of 225 predictions are not finite, the first one \(nan\) in row 2, column 7"),
        (TRUTH * 1e20, "values beyond 1e\\+15 cannot be drawn"),
        (TRUTH * 1j, "complex numbers"),
        ([[1, 2], [3]], "the list given cannot be read as such"),
        ([["a"] * 15] * 15, "could not convert string to float"),
        ({"x": 1}, "the dict given cannot be read as such"),
        (None, r"not an array of shape \(\)"),
        ([[10**400] * 15] * 15, "the list given cannot be read as such"),
    ],
)
def test_anything_else_is_refused_before_drawing(tmp_path, predictions, message):
    target = tmp_path / "plot.png"
    with pytest.raises(ValueError, match=message):
        plot_surface(predictions, target)
    assert not target.exists()


def test_several_at_once_do_not_disturb_each_other():
    alone = drawn(TRUTH).tobytes()
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda _: drawn(TRUTH).tobytes(), range(3)))
    assert together == [alone] * 3


def test_importing_it_costs_nothing_and_drawing_leaves_no_global_state():
    script = (
        "import sys, io; import include.branin.plot as plot; from include.branin.data import surface\n"
        "print(sorted({'numpy', 'matplotlib', 'scipy', 'sklearn'} & set(sys.modules)))\n"
        "plot.plot_surface(surface(), io.BytesIO(), width=300); print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.split("\n")[:2] == ["[]", "False"], done.stderr


def several(results, **options) -> tuple[Image.Image, list]:
    stream = io.BytesIO()
    figures = plot_several(results, stream, **options)
    return Image.open(stream), figures


def test_several_models_are_drawn_side_by_side_the_best_first():
    models = [
        ("far", TRUTH + 9),
        ("near", TRUTH + 1),
        ("wavy", TRUTH + np.linspace(-5, 5, 225).reshape(15, 15)),
    ]
    picture, figures = several(models, subtitle="a run")
    assert picture.format == "PNG"
    assert picture.size[0] == 1200
    assert [round(found.max_error) for found in figures] == [1, 5, 9]
    assert several(models[:2])[0].tobytes() != several(models[1:])[0].tobytes()
    # More of them make it longer, not smaller.
    assert several(models * 3)[0].size[1] > picture.size[1]


def test_the_picture_of_several_says_how_many_failed():
    models = [("$x_1$", TRUTH), ("a" * 200, TRUTH + 1)]
    assert several(models, missing=2)[0].tobytes() != several(models)[0].tobytes()


@pytest.mark.parametrize("results", [[], [("good", TRUTH), ("bad", [[1.0]])]])
def test_several_results_that_cannot_be_drawn(results):
    with pytest.raises(ValueError, match="no result to draw|should be 15 x 15"):
        several(results)
