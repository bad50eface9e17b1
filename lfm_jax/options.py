"""Options of the `lfm` command that are more than a word: from text to values."""

import re
from collections.abc import Sequence

from lfm_jax.errors import LfmError


def parse_renames(pairs: Sequence[str]) -> dict[str, str]:
    """Their names to ours."""
    found = {}
    for pair in pairs:
        theirs, equals, ours = pair.partition("=")
        if not (theirs and equals and ours):
            raise LfmError(f"--map {pair} is not of the form theirs=ours.")
        if theirs in found:
            raise LfmError(f"--map names '{theirs}' twice: keep one.")
        found[theirs] = ours
    return found


def parse_bone(option: str | None) -> tuple[tuple[str, str], float, str] | None:
    """Two keypoints, their distance and its unit."""
    if option is None:
        return None
    match = re.fullmatch(r"([^,=]+),([^,=]+)=([0-9.eE+-]+) ?(mm|cm|m|)", option)
    try:
        length = float(match[3])
    except (TypeError, ValueError):
        length = 0.0
    if not 0 < length < float("inf"):
        raise LfmError(
            f"--bone {option} is not of the form A,B=LENGTH, such as Hip,Knee=120mm."
        )
    return (match[1], match[2]), length, match[4] or "mm"


def parse_size(option: str | None) -> tuple[int, int] | None:
    """Width and height."""
    if option is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", option)
    if not match:
        raise LfmError(
            f"--image-size {option} is not of the form WIDTHxHEIGHT, such as 1920x1080."
        )
    return int(match[1]), int(match[2])


def parse_edges(pairs: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of keypoints that are joined."""
    found = []
    for pair in pairs:
        ends = tuple(pair.split(","))
        if len(ends) != 2 or not all(ends):
            raise LfmError(f"--edge {pair} is not of the form A,B.")
        found.append(ends)
    return found
