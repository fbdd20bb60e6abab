"""How Elasticsearch's standard analyzer reads texts, and how its wildcards match them."""

from __future__ import annotations

import functools
import re

# Unicode's word rules (UAX #29), as far as names, addresses and DIDs need them: letters, digits and underscores hold
# together, also over a full stop, colon or apostrophe between letters and over a full stop or comma between digits;
# ideographs stand alone.
_TOKEN = re.compile(
    r"[\u3040-\u309f\u3400-\u4dbf\u4e00-\u9fff]"
    r"|(?:[^\W\u3040-\u309f\u3400-\u4dbf\u4e00-\u9fff]"
    r"|(?<=[^\W\d_])[.:'’·](?=[^\W\d_])"
    r"|(?<=\d)[.,;'’](?=\d))+"
)


def tokens(text: str) -> list[str]:
    """Return a text's words in lower case."""
    return [token for token in _TOKEN.findall(text.lower()) if token.strip("_")]


@functools.lru_cache(maxsize=256)
def wildcard(pattern: str, ignore_case: bool = False) -> re.Pattern[str]:
    r"""Compile a pattern with ``*``, ``?`` and ``\`` before a character that is meant literally."""
    parts = []
    for part in re.findall(r"\\.|\*+|.", pattern, re.DOTALL):
        if part[0] == "*":
            parts.append(".*")
        elif part == "?":
            parts.append(".")
        else:
            parts.append(re.escape(part[-1]))
    return re.compile("".join(parts), re.DOTALL | (re.IGNORECASE if ignore_case else 0))
