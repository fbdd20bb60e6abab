"""The Branin function, the grid it is sampled on, and the ARFF file made of both.

``python -m include.branin.data`` writes ``branin.arff`` beside this module. The 225 rows are those of the data set that
ocean.py's Compute-to-Data documentation publishes, so that results can be compared.
"""

from __future__ import annotations

import math
from pathlib import Path

GRID_POINTS = 15
X0_RANGE = (-5.0, 10.0)
X1_RANGE = (0.0, 15.0)
DATA_FILE = Path(__file__).with_name("branin.arff")

_HEADER = """\
% The Branin function on a grid of 15 x 15 points, four decimals.
% y = (x1 - b x0^2 + c x0 - 6)^2 + 10 (1 - t) cos(x0) + 10
% with b = 5.1 / (4 pi^2), c = 5 / pi, t = 1 / (8 pi)

@relation branin

@attribute x0 numeric
@attribute x1 numeric
@attribute y numeric

@data
"""


def branin(x0: float, x1: float) -> float:
    """Return the value of the Branin function, usually asked for −5 ≤ x0 ≤ 10 and 0 ≤ x1 ≤ 15.

    :param x0: first coordinate
    :param x1: second coordinate
    :return: the function's value; its minimum, 0.397887, is reached at three places
    """
    b = 5.1 / (4 * math.pi**2)
    c = 5 / math.pi
    t = 1 / (8 * math.pi)
    return (x1 - b * x0**2 + c * x0 - 6) ** 2 + 10 * (1 - t) * math.cos(x0) + 10


def axis(limits: tuple[float, float], points: int = GRID_POINTS) -> list[float]:
    """Return evenly spaced coordinates, both limits among them.

    :param limits: first and last coordinate
    :param points: how many coordinates, at least 2
    """
    low, high = limits
    return [low + (high - low) * step / (points - 1) for step in range(points)]


def surface(points: int = GRID_POINTS) -> list[list[float]]:
    """Return the function on a square grid as ``rows[i][j]`` = value at the j-th x0 and the i-th x1.

    :param points: how many points each axis has, at least 2
    """
    return [[branin(x0, x1) for x0 in axis(X0_RANGE, points)] for x1 in axis(X1_RANGE, points)]


def arff() -> str:
    """Return the data set as ARFF text; x0 runs fastest."""
    rows = [f"{x0:.4f},{x1:.4f},{branin(x0, x1):.4f}\n" for x1 in axis(X1_RANGE) for x0 in axis(X0_RANGE)]
    return _HEADER + "".join(rows)


if __name__ == "__main__":
    DATA_FILE.write_text(arff(), encoding="ascii", newline="\n")
    print(f"wrote {GRID_POINTS**2} points to {DATA_FILE}")
