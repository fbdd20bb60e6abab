"""An algorithm that writes as many random bytes as its custom data says, in pieces."""

from __future__ import annotations

import json
import os
from pathlib import Path

PIECE = 1 << 20


def main() -> None:
    """Write the result."""
    left = json.loads(Path("/data/inputs/algoCustomData.json").read_text())["bytes"]
    with open("/data/outputs/result", "wb") as file:
        while left:
            left -= file.write(os.urandom(min(PIECE, left)))


if __name__ == "__main__":
    main()
