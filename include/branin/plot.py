"""The picture of a result: the true Branin surface, the model's points on it, and how far they are off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from include.branin.data import GRID_POINTS, X0_RANGE, X1_RANGE, axis, surface

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from mpl_toolkits.mplot3d import Axes3D
    from numpy.typing import NDArray

    Grid = NDArray[np.float64]

_INK = "#1f2933"
_FAINT = "#7b8794"
_POINTS = "#c2410c"
# The function itself stays below 310; far beyond this the squares of errors overflow.
_LARGEST = 1e15


@dataclass(frozen=True)
class FitFigures:
    """How well predictions agree with the function.

    :param rmse: root of the mean squared error, in units of y
    :param max_error: largest error, without its sign
    :param r2: coefficient of determination; 1 is perfect, 0 is as good as the mean
    """

    rmse: float
    max_error: float
    r2: float


def fit_figures(predictions: Sequence[Sequence[float]] | NDArray[Any]) -> FitFigures:
    """Compare predictions with the function.

    :param predictions: 15 × 15 numbers, row i and column j at the i-th x1 and the j-th x0 of the grid
    :raises ValueError: they are not 15 × 15 finite numbers
    """
    import numpy as np

    truth = np.array(surface())
    errors = _checked(predictions) - truth
    return FitFigures(
        rmse=float(np.sqrt(np.mean(errors**2))),
        max_error=float(np.abs(errors).max()),
        r2=float(1 - np.sum(errors**2) / np.sum((truth - truth.mean()) ** 2)),
    )


def plot_surface(
    predictions: Sequence[Sequence[float]] | NDArray[Any],
    target: str | os.PathLike[str] | BinaryIO,
    *,
    title: str = "Gaussian-process regression of the Branin function",
    subtitle: str = "",
    width: int = 1200,
) -> FitFigures:
    """Draw the true surface and the model's points on it as a PNG.

    :param predictions: 15 × 15 numbers, row i and column j at the i-th x1 and the j-th x0 of the grid
    :param target: file to write, or a binary stream
    :param title: headline of the picture
    :param subtitle: a second, smaller line, such as the name of the run; shortened when it is too long
    :param width: width in pixels; the height is two thirds of it
    :return: the error figures that the picture shows
    :raises ValueError: the predictions are not 15 × 15 finite numbers
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    grid = _checked(predictions)
    figures = fit_figures(grid)
    # Text and lines are laid out for 12 inches by 8; another width scales all of them alike.
    figure = Figure(figsize=(12, 8), dpi=width / 12, facecolor="white")
    FigureCanvasAgg(figure)
    _headline(figure, title, subtitle)
    _draw_surface(figure.add_axes((0.0, 0.02, 0.66, 0.86), projection="3d"), grid)
    _draw_errors(figure, figure.add_axes((0.69, 0.12, 0.22, 0.33)), grid)
    _write_figures(figure, figures)
    figure.savefig(target, format="png")
    return figures


def plot_several(
    results: Sequence[tuple[str, Sequence[Sequence[float]] | NDArray[Any]]],
    target: str | os.PathLike[str] | BinaryIO,
    *,
    title: str = "Models of the Branin function, side by side",
    subtitle: str = "",
    missing: int = 0,
    width: int = 1200,
) -> list[FitFigures]:
    """Draw the errors of several models as small maps with one colour scale, the best model first.

    :param results: label and predictions of each, as :func:`plot_surface` takes them
    :param target: file to write, or a binary stream
    :param title: headline of the picture
    :param subtitle: a second, smaller line
    :param missing: how many results are not there because their job failed; said in the picture
    :param width: width in pixels
    :return: the error figures of each, in the order of the picture
    :raises ValueError: there is no result, or one of them is not 15 × 15 finite numbers
    """
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not results:
        raise ValueError("there is no result to draw")
    checked = [(label, _checked(predictions)) for label, predictions in results]
    ranked = sorted(
        ((fit_figures(grid), label, grid) for label, grid in checked), key=lambda model: model[0].rmse
    )
    truth = np.array(surface())
    # Below this the colours would show rounding, not errors.
    largest = max(max(figures.max_error for figures, _, _ in ranked), 1e-3)
    columns = min(len(ranked), 4)
    rows = -(-len(ranked) // columns)
    height = 2.2 + 3.1 * rows
    figure = Figure(figsize=(12, height), dpi=width / 12, facecolor="white")
    FigureCanvasAgg(figure)
    failed = f"{missing} of {len(ranked) + missing} jobs failed" if missing else ""
    for text, size, colour, below in (
        (title, 21, _INK, 0.55),
        (" · ".join(part for part in (subtitle, failed) if part), 13, _FAINT, 0.9),
    ):
        line = _shortened(text, 110)
        weight = "bold" if colour == _INK else "normal"
        figure.text(0.04, 1 - below / height, line, size=size, color=colour, weight=weight, parse_math=False)
    grid_spec = figure.add_gridspec(
        rows, columns, left=0.05, right=0.89, bottom=0.5 / height, top=1 - 1.7 / height, hspace=0.45
    )
    maps = []
    for place, (figures, label, grid) in enumerate(ranked):
        axes = figure.add_subplot(grid_spec[place // columns, place % columns])
        drawn = axes.pcolormesh(
            axis(X0_RANGE), axis(X1_RANGE), grid - truth, cmap="RdBu_r", shading="nearest"
        )
        drawn.set_clim(-largest, largest)
        maps.append(drawn)
        heading = f"{_shortened(label, 26)}\nRMSE {figures.rmse:.4g}, R² {figures.r2:.4f}"
        axes.set_title(heading, size=11, color=_INK, loc="left", parse_math=False)
        axes.set_xticks(axis(X0_RANGE, 4))
        axes.set_yticks(axis(X1_RANGE, 4))
        axes.tick_params(labelsize=9, colors=_INK)
    bar = figure.colorbar(maps[0], cax=figure.add_axes((0.915, 0.5 / height, 0.015, 1 - 2.2 / height)))
    bar.ax.set_title("error", size=11, color=_INK)
    bar.ax.tick_params(labelsize=9, colors=_INK)
    figure.savefig(target, format="png")
    return [figures for figures, _, _ in ranked]


def _checked(predictions: Sequence[Sequence[float]] | NDArray[Any]) -> Grid:
    """Return predictions as an array of floats, or say what is wrong with them."""
    import numpy as np

    wanted = f"{GRID_POINTS} x {GRID_POINTS} numbers (row = x1, column = x0)"
    try:
        given = np.asarray(predictions)
        if given.dtype.kind == "c":
            raise ValueError("complex numbers")
        grid = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"predictions should be {wanted}, but the {type(predictions).__name__} given cannot be read as such: {error}"
        ) from error
    if grid.shape != (GRID_POINTS, GRID_POINTS):
        raise ValueError(f"predictions should be {wanted}, not an array of shape {grid.shape}")
    wrong = np.argwhere(~np.isfinite(grid))
    if len(wrong):
        row, column = wrong[0]
        raise ValueError(
            f"{len(wrong)} of {grid.size} predictions are not finite, the first one "
            f"({grid[row, column]}) in row {row}, column {column}"
        )
    if np.abs(grid).max() > _LARGEST:
        raise ValueError(
            f"the largest prediction is {np.abs(grid).max():.4g}; values beyond {_LARGEST:.0e} cannot be drawn"
        )
    return grid


def _headline(figure: Figure, title: str, subtitle: str) -> None:
    """Write title and second line; neither is read as mathematics, whatever signs it holds."""
    figure.text(0.04, 0.93, _shortened(title, 70), size=21, weight="bold", color=_INK, parse_math=False)
    if subtitle:
        figure.text(0.04, 0.893, _shortened(subtitle, 110), size=13, color=_FAINT, parse_math=False)


def _shortened(text: str, length: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def _draw_surface(axes: Axes3D, grid: Grid) -> None:
    """Draw the true surface, the points, and the line from each point to the surface."""
    import numpy as np
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    fine = 76
    x0, x1 = np.meshgrid(axis(X0_RANGE, fine), axis(X1_RANGE, fine))
    axes.computed_zorder = False  # the points have to stay in sight where the surface would hide them
    axes.plot_surface(
        x0,
        x1,
        np.array(surface(fine)),
        cmap="viridis",
        rcount=fine,
        ccount=fine,
        linewidth=0,
        antialiased=False,
        zorder=1,
    )
    x0, x1 = np.meshgrid(axis(X0_RANGE), axis(X1_RANGE))
    axes.plot_wireframe(x0, x1, np.array(surface()), color=_INK, alpha=0.25, linewidth=0.6, zorder=2)
    for a, b, truth, model in zip(x0.flat, x1.flat, np.array(surface()).flat, grid.flat, strict=True):
        axes.plot([a, a], [b, b], [truth, model], color=_POINTS, linewidth=1.3, zorder=3)
    axes.scatter(
        x0, x1, grid, color=_POINTS, s=17, depthshade=False, edgecolors="white", linewidths=0.4, zorder=4
    )
    axes.set_xlim(*X0_RANGE)
    axes.set_ylim(*X1_RANGE)
    axes.set_xticks(axis(X0_RANGE, 4))
    axes.set_yticks(axis(X1_RANGE, 4))
    axes.set_xlabel("x0", size=15, labelpad=10, color=_INK)
    axes.set_ylabel("x1", size=15, labelpad=10, color=_INK)
    axes.set_zlabel("y", size=15, labelpad=10, color=_INK)
    axes.tick_params(labelsize=12, colors=_INK)
    axes.view_init(elev=30, azim=-58)  # both peaks and the valley between them are in sight
    axes.set_box_aspect((1, 1, 0.72), zoom=0.92)
    axes.legend(
        handles=[
            Patch(facecolor="#35b779", alpha=0.6, label="Branin function"),
            Line2D([], [], marker="o", linestyle="", color=_POINTS, label="model"),
        ],
        loc="upper left",
        bbox_to_anchor=(0.06, 0.97),
        fontsize=13,
        frameon=False,
    )


def _draw_errors(figure: Figure, axes: Axes, grid: Grid) -> None:
    """Draw the error at each point of the grid, seen from above."""
    import numpy as np

    errors = grid - np.array(surface())
    # Below this the colours would show rounding, not errors.
    largest = max(float(np.abs(errors).max()), 1e-3)
    image = axes.pcolormesh(
        axis(X0_RANGE), axis(X1_RANGE), errors, cmap="RdBu_r", vmin=-largest, vmax=largest, shading="nearest"
    )
    axes.set_title("error: model − function", size=14, color=_INK, pad=10, loc="left")
    axes.set_xticks(axis(X0_RANGE, 4))
    axes.set_yticks(axis(X1_RANGE, 4))
    axes.set_xlabel("x0", size=13, color=_INK)
    axes.set_ylabel("x1", size=13, color=_INK)
    axes.tick_params(labelsize=11, colors=_INK)
    bar = figure.colorbar(image, ax=axes, fraction=0.06, pad=0.04)
    bar.ax.tick_params(labelsize=11, colors=_INK)


def _write_figures(figure: Figure, figures: FitFigures) -> None:
    """Write the error figures as a small table."""
    rows = (
        ("RMSE", f"{figures.rmse:.4g}"),
        ("largest error", f"{figures.max_error:.4g}"),
        ("R²", f"{figures.r2:.5f}" if figures.r2 > -10 else f"{figures.r2:.4g}"),
        ("points", f"{GRID_POINTS} × {GRID_POINTS}"),
    )
    for line, (label, value) in enumerate(rows):
        height = 0.80 - line * 0.058
        figure.text(0.69, height, label, size=15, color=_FAINT)
        figure.text(0.94, height, value, size=17, weight="bold", color=_INK, ha="right")
