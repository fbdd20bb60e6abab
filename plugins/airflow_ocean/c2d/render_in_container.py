"""What decodes and draws a result inside a container; it is copied there and imports no more of this package than decoding."""

from __future__ import annotations

import json
import pkgutil
import sys
from pathlib import Path

from airflow_ocean.c2d.decoding import decode_result
from airflow_ocean.c2d.errors import FatalError

REFUSED = 3
"""The exit status when the result, not the container, is to blame; the reason is the log's last line."""


def main() -> int:
    """Draw as ``/data/inputs/order.json`` says, and return the exit code."""
    order = json.loads(Path("/data/inputs/order.json").read_text())
    draw = pkgutil.resolve_name(order["render"])
    try:
        with open("/data/inputs/result", "rb") as stream:
            decoded = decode_result(stream, order["name"])
        with open("/data/outputs/plot.png", "wb") as picture:
            draw(decoded.value, picture, **order["options"])
    except (FatalError, TypeError, ValueError) as error:
        print(f"{order['render']} cannot draw the result: {error}".replace("\n", " "))
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
