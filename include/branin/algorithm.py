"""The algorithm that is published: Gaussian-process regression of the Branin function. One file, nothing of this project.

It is written for the image ``oceanprotocol/algo_dockers:python-branin`` (Python 3.7, NumPy 1.21, SciPy 1.7,
scikit-learn 0.24) and runs as well on today's versions. Where its data is depends on who runs it:

- operator-service: ``DIDS`` holds a JSON list, the data is at ``$INPUTS/<did>/0``, ``$INPUTS/<did>/1``, ...
- Ocean Node: no ``DIDS``; the data is at ``/data/inputs/<file name>``

Custom data may choose the model, in ``/data/inputs/algoCustomData.json``:

=========  =====================================================  =========
key        meaning                                                default
=========  =====================================================  =========
kernel     "rbf" or "matern"                                      "rbf"
points     how many of the rows to learn from, at random          40
noise      standard deviation of the noise on y, in units of y    0.1
seed       of the random choice                                   0
=========  =====================================================  =========

The result, at ``/data/outputs/result``, is a pickled 15 x 15 NumPy array: row i, column j is the prediction at the i-th
x1 and the j-th x0 of the grid. The log says how well the model does on the rows it was not shown. When something is
wrong the log says what, and the exit code is 1.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

# One thread each: a compute environment sells few cores, and 225 points are not worth more. NumPy's libraries read
# these when they are loaded, therefore NumPy is imported further down.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

CUSTOM_DATA = "algoCustomData.json"
DEFAULTS = {"kernel": "rbf", "points": 40, "noise": 0.1, "seed": 0}
GRID_POINTS = 15
COLUMNS = ("x0", "x1", "y")
# A fit takes memory as points squared and time as points cubed: 1000 take 15 seconds and 150 MB.
MOST_POINTS = 1000
FEWEST_POINTS = 5


class AlgorithmError(Exception):
    """Something the one who started the job, or who published the data, can put right."""


def main() -> int:
    """Read, learn, predict, write; return the exit code."""
    inputs = folder("INPUTS", "inputs")
    result = folder("OUTPUTS", "outputs") / "result"
    try:
        settings = read_settings(inputs / CUSTOM_DATA)
        rows = read_rows(input_files(inputs))
        predictions = learn_and_predict(rows, settings)
        write_result(result, predictions)
    except AlgorithmError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    print(f"wrote {GRID_POINTS} x {GRID_POINTS} predictions to {result}")
    return 0


def folder(variable: str, name: str) -> Path:
    """Return the folder that the environment variable names, or the usual one below ``/data``."""
    return Path(os.environ.get(variable) or os.path.join(os.environ.get("VOLUME") or "/data", name))


def input_files(inputs: Path) -> list[Path]:
    """Find the data files, in whichever of the two layouts they are.

    :param inputs: the folder of the inputs
    :raises AlgorithmError: none is there
    """
    if not inputs.is_dir():
        raise AlgorithmError(f"there is no folder of inputs at {inputs}; is INPUTS set right?")
    dids = read_dids(os.environ.get("DIDS", ""))
    if dids:
        files = []
        for did in dids:
            found = sorted((path for path in (inputs / did).glob("*") if path.is_file()), key=file_order)
            if not found:
                raise AlgorithmError(
                    "the data of {} is missing: no file {}; {}".format(
                        did, inputs / did / "0", listing(inputs)
                    )
                )
            files.extend(found)
        return files
    # The transformation's own folder is passed over: some engines put the algorithm beside its data.
    skipped = {CUSTOM_DATA, os.environ.get("TRANSFORMATION_DID", "").replace("did:op:", "")}
    files = [
        path
        for path in inputs.rglob("*")
        if path.is_file() and path.relative_to(inputs).parts[0] not in skipped
    ]
    if not files:
        raise AlgorithmError(
            f"no data: DIDS is not set and there is no file in {inputs} beside {CUSTOM_DATA}"
        )
    return sorted(files, key=file_order)


def read_dids(text: str) -> list[str]:
    """Read ``DIDS``: a JSON list of DIDs, with or without their prefix."""
    if not text.strip():
        return []
    try:
        dids = json.loads(text)
    except ValueError:
        raise AlgorithmError(f"DIDS is not JSON: {text[:200]!r}") from None
    if not isinstance(dids, list) or not all(isinstance(did, str) and did for did in dids):
        raise AlgorithmError(f"DIDS should be a JSON list of strings: {text[:200]!r}")
    return [did.replace("did:op:", "") for did in dids]


def file_order(path: Path) -> tuple[str, int, str]:
    """Sort 2 before 10: the files of a data set are named by their index."""
    return str(path.parent), int(path.name) if path.name.isdigit() else sys.maxsize, path.name


def listing(inputs: Path) -> str:
    """Say what is there, to help whoever looks for what is not."""
    names = sorted(str(path.relative_to(inputs)) for path in inputs.rglob("*"))
    return "{} holds {}".format(inputs, ", ".join(names[:20]) if names else "nothing")


def read_settings(path: Path) -> dict[str, Any]:
    """Read and check the custom data.

    :param path: where it may be
    :return: every setting, defaults filled in
    :raises AlgorithmError: it is not JSON, has an unknown key or an impossible value
    """
    settings: dict[str, Any] = dict(DEFAULTS)
    if not path.is_file():
        return settings
    try:
        given = json.loads(path.read_text(encoding="utf-8") or "null")
        if isinstance(given, str):  # some clients send the JSON as a string, which is then quoted once more
            given = json.loads(given or "null")
    except ValueError as error:
        raise AlgorithmError(f"{path} is not JSON: {error}") from None
    if given is None:
        return settings
    if not isinstance(given, dict):
        raise AlgorithmError(f"{path} should hold a JSON object, not {json.dumps(given)[:200]}")
    unknown = sorted(set(given) - set(DEFAULTS))
    if unknown:
        raise AlgorithmError(
            "unknown custom data {}; known are {}".format(", ".join(unknown), ", ".join(sorted(DEFAULTS)))
        )
    settings.update(given)
    check_settings(settings)
    return settings


def check_settings(settings: dict[str, Any]) -> None:
    """Refuse values that no model can be built from."""
    if settings["kernel"] not in ("rbf", "matern"):
        raise AlgorithmError('kernel should be "rbf" or "matern", not {!r}'.format(settings["kernel"]))
    for key, low, high in (("points", FEWEST_POINTS, MOST_POINTS), ("seed", 0, 2**32 - 1)):
        value = settings[key]
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise AlgorithmError(f"{key} should be a whole number from {low} to {high}, not {value!r}")
    noise = settings["noise"]
    if isinstance(noise, bool) or not isinstance(noise, (int, float)) or not 0 <= noise <= 1e6:
        raise AlgorithmError(f"noise should be a number from 0 to 1000000, not {noise!r}")


def read_rows(files: list[Path]) -> np.ndarray[Any, Any]:
    """Read x0, x1 and y from every file, one below the other.

    :param files: ARFF files
    :raises AlgorithmError: a file is not ARFF, lacks a column or holds something that is no number
    """
    import numpy as np

    rows = np.concatenate([read_arff(path) for path in files])
    print("read {} rows from {}".format(len(rows), ", ".join(str(path) for path in files)))
    return rows


def read_arff(path: Path) -> np.ndarray[Any, Any]:
    """Read the three columns of one ARFF file."""
    import numpy as np
    from scipy.io import arff

    try:
        with path.open(encoding="utf-8") as stream:
            data, description = arff.loadarff(stream)
    except OSError as error:
        raise AlgorithmError(f"cannot read {path}: {error}") from None
    except Exception as error:  # SciPy's reader lets whatever goes wrong inside it through
        reason = str(error) or "it ends before its header does"
        raise AlgorithmError(f"{path} is not an ARFF file of numbers: {reason}") from None
    # SciPy's reader keeps the quotes around names, which the ARFF format allows.
    places = {name.strip("'\""): name for name in description.names()}
    missing = [column for column in COLUMNS if column not in places]
    if missing:
        raise AlgorithmError(
            "{} has no column {}; it has {}".format(path, ", ".join(missing), ", ".join(places) or "none")
        )
    try:
        rows = np.array([[row[places[column]] for column in COLUMNS] for row in data], dtype=float)
    except ValueError as error:
        raise AlgorithmError(f"{path} holds something that is no number: {error}") from None
    if not len(rows):
        raise AlgorithmError(f"{path} has no rows")
    if not np.isfinite(rows).all():
        first = int(np.argmin(np.isfinite(rows).all(axis=1)))
        raise AlgorithmError(f"{path} has a missing or infinite value in row {first + 1}")
    return rows


def learn_and_predict(rows: np.ndarray[Any, Any], settings: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Fit the model to some of the rows and ask it for the whole grid.

    :param rows: x0, x1, y
    :param settings: as :func:`read_settings` returns them
    :return: 15 x 15 predictions
    :raises AlgorithmError: there are not enough rows, or nothing to learn from them
    """
    import numpy as np

    points = settings["points"]
    if points > len(rows):
        raise AlgorithmError(f"points is {points}, but the data has {len(rows)} rows")
    # RandomState rather than default_rng: its numbers are the same in every version of NumPy.
    order = np.random.RandomState(settings["seed"]).permutation(len(rows))
    train, rest = rows[order[:points]], rows[order[points:]]
    scale = float(train[:, 2].std())
    if scale == 0:
        raise AlgorithmError(f"y is {train[0, 2]} in every row: there is nothing to learn")
    model = build_model(settings, scale)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(train[:, :2], train[:, 2])
    for text in sorted({str(entry.message).splitlines()[0] for entry in caught if str(entry.message)}):
        print(f"note: {text}")
    print(f"learned from {points} of {len(rows)} rows: {model.kernel_}")
    if len(rest):
        errors = model.predict(rest[:, :2]) - rest[:, 2]
        print(
            f"on the other {len(rest)} rows: RMSE {math.sqrt(float(np.mean(errors**2))):.4g}, largest error {float(np.abs(errors).max()):.4g}"
        )
    x0, x1 = np.meshgrid(np.linspace(-5.0, 10.0, GRID_POINTS), np.linspace(0.0, 15.0, GRID_POINTS))
    predictions = model.predict(np.column_stack([x0.ravel(), x1.ravel()]))
    return np.asarray(predictions, dtype=float).reshape(GRID_POINTS, GRID_POINTS)


def build_model(settings: dict[str, Any], scale: float) -> Any:
    """Build the regressor.

    :param settings: as :func:`read_settings` returns them
    :param scale: standard deviation of y, by which the model divides
    """
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern

    lengths, bounds = [5.0, 10.0], (0.1, 1000.0)
    shape = RBF(lengths, bounds) if settings["kernel"] == "rbf" else Matern(lengths, bounds, nu=2.5)
    return GaussianProcessRegressor(
        kernel=ConstantKernel(10.0, (1e-2, 1e4)) * shape,
        alpha=max((settings["noise"] / scale) ** 2, 1e-10),  # below that the matrix cannot be factorised
        normalize_y=True,
        n_restarts_optimizer=1,
        random_state=settings["seed"],
    )


def write_result(path: Path, predictions: np.ndarray[Any, Any]) -> None:
    """Write the array so that a job which is stopped meanwhile leaves no half of it."""
    unfinished = path.with_name("." + path.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as stream:
            pickle.dump(predictions, stream, protocol=4)
        unfinished.replace(path)
    except OSError as error:
        raise AlgorithmError(f"cannot write the result to {path}: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
