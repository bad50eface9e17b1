"""Tables of 2D keypoints (.csv).

DeepLabCut's have three or four rows of header, each with its name in the first cell:
`scorer`, `individuals` (only where there are several), `bodyparts` and `coords`. Plain
ones have one, with `nose_x`, `nose_y` and, where known, `nose_likelihood` (or score,
confidence, visibility; a dot or a blank may take the place of the underscore). A plain
table may number its frames in a column `frame` and name individuals in a column
`track` or `individual`, one row for each of them; SLEAP exports such ones.
"""

import csv
import math
import pathlib
import re
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float, Int

from lfm_jax.data.readers.columns import COORDINATES, Column, from_columns
from lfm_jax.data.readers.keypoints import Keypoints2D
from lfm_jax.errors import LfmError

HEADER = ("scorer", "individuals", "bodyparts", "coords")
_NUMBERED = ("frame", "frame_idx", "fnum")
_NAMED = ("track", "individual")
_SCORES = ("instance.score", "instance_score")  # SLEAP's, of all keypoints together
_COORDINATE = re.compile(rf"(.+)[_. ]({'|'.join(COORDINATES)})", re.IGNORECASE)
_MISSING = ("", "na", "nan", "none", "null")
_LARGEST = 2.0**53  # Whole numbers up to here are exact.

_Rows = list[tuple[int, list[str]]]  # Each with the number of its line.


def read(path: pathlib.Path, threshold: float) -> list[Keypoints2D]:
    """The individuals of a table, DeepLabCut's or plain."""
    rows = _rows(path)
    if rows[0][1][0].strip().casefold() in HEADER:
        return _read_deeplabcut(path, rows, threshold)
    return _read_plain(path, rows, threshold)


def _rows(path: pathlib.Path) -> _Rows:
    """The lines that are not blank; all must have as many cells as the first."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, row) for row in reader if row]
    except UnicodeDecodeError as error:
        raise LfmError(
            f"{path} is not text in UTF-8 ({error.reason} at byte {error.start}): save "
            "it as CSV in UTF-8."
        ) from error
    except (ValueError, csv.Error, OSError) as error:
        raise LfmError(
            f"{path} is damaged or no CSV file ({error}): export it again."
        ) from error
    if not rows:
        raise LfmError(f"{path} is empty: export it again.")
    width = len(rows[0][1])
    for separator in ";\t|":
        if width == 1 and separator in rows[0][1][0]:
            raise LfmError(
                f"{path} separates its columns by {separator!r}: save it with commas "
                "(and points in numbers)."
            )
    for line, row in rows:
        if len(row) != width:
            raise LfmError(
                f"{path}, line {line}: {len(row)} cells where the first line has "
                f"{width}: complete the line or leave it out."
            )
    return rows


def _numbers(
    path: pathlib.Path, rows: _Rows, places: Sequence[int], titles: Sequence[str]
) -> Float[np.ndarray, "f c"]:
    """Cells as numbers, NaN where they are empty."""
    values = np.empty((len(rows), len(places)))
    for i, (line, row) in enumerate(rows):
        for j, place in enumerate(places):
            cell = row[place].strip()
            try:
                values[i, j] = np.nan if cell.casefold() in _MISSING else float(cell)
            except ValueError:
                raise LfmError(
                    f"{path}, line {line}, column '{titles[j]}': '{cell[:40]}' is not "
                    "a number: mend it, or leave it empty where the point is missing."
                ) from None
    return values


# ------------------------------------------------------------------------- DeepLabCut


def _read_deeplabcut(
    path: pathlib.Path, rows: _Rows, threshold: float
) -> list[Keypoints2D]:
    header = {}
    while rows and (title := rows[0][1][0].strip().casefold()) in HEADER:
        header[title] = [cell.strip() for cell in rows.pop(0)[1]]
    for title in ("bodyparts", "coords"):
        if title not in header:
            raise LfmError(
                f"{path} has no row '{title}' in its header: DeepLabCut's tables begin "
                "with scorer, (individuals,) bodyparts and coords."
            )
    if not rows:
        raise LfmError(f"{path} has no frames: it ends with its header.")
    places = [i for i, cell in enumerate(header["coords"][1:], 1) if cell]
    none = [""] * len(header["coords"])
    levels = header.get("individuals", none), header["bodyparts"], header["coords"]
    titles = list(zip(*levels, strict=True))
    columns = deeplabcut_columns(str(path), [titles[place] for place in places])
    values = _numbers(path, rows, places, [str(column) for column in columns])
    # Labelled images have up to three cells that say which, predictions a number.
    index = [[cell for cell in row[: min(places)] if cell] for _, row in rows]
    names = ("/".join(cells) for cells in index)
    return deeplabcut(path, columns, values, names, threshold)


def deeplabcut(
    path: pathlib.Path,
    columns: Sequence[Column],
    values: Float[np.ndarray, "f c"],
    index: Iterable[str],
    threshold: float,
) -> list[Keypoints2D]:
    """The individuals of a DeepLabCut table, whatever the file that it stood in.

    Args:
        path: the file.
        columns: what `deeplabcut_columns` made of the titles.
        values: one row for every frame.
        index: what the table calls each frame.
        threshold: points less likely than this count as missing.
    """
    labels, frames = labelled(index)
    return from_columns(
        columns,
        values,
        threshold=threshold,
        source=str(path),
        labels=labels,
        frames=frames,
        kind="DeepLabCut table",
    )


def deeplabcut_columns(
    source: str, titles: Sequence[tuple[str, str, str]]
) -> list[Column]:
    """Columns by DeepLabCut's titles: individual, body part and coordinate.

    Raises:
        LfmError: there are none, or one is of another coordinate.
    """
    if not titles:
        raise LfmError(f"{source} has no columns of keypoints: export it again.")
    for title in titles:
        if title[-1] not in ("x", "y", "likelihood"):
            raise LfmError(
                f"{source} has a column '{' '.join(title).strip()}', but DeepLabCut's "
                "are x, y and likelihood of a body part: complete the rows of its "
                "header."
            )
    return [Column(*title) for title in titles]


def labelled(index: Iterable[str]) -> tuple[tuple[str, ...], Int[np.ndarray, "f"]]:
    """What to call frames, and their numbers, from what a table calls its rows."""
    index = tuple(index)
    if all(re.fullmatch(r"\d{1,15}", cell) for cell in index):
        frames = np.array([int(cell) for cell in index])
        return tuple(f"frame {number}" for number in frames), frames
    labels = (f"frame {i} ({cell})" for i, cell in enumerate(index))
    return tuple(labels), np.arange(len(index))


# ------------------------------------------------------------------------------ plain


def _read_plain(path: pathlib.Path, rows: _Rows, threshold: float) -> list[Keypoints2D]:
    titles = [cell.strip() for cell in rows.pop(0)[1]]
    matches = [_COORDINATE.fullmatch(title) for title in titles]
    places = [
        i for i, match in enumerate(matches) if match and titles[i] not in _SCORES
    ]
    if not places:
        raise LfmError(
            f"{path} has no columns such as nose_x and nose_y (it begins with "
            f"'{', '.join(titles)[:60]}'): name them so, or add DeepLabCut's header."
        )
    if not rows:
        raise LfmError(f"{path} has no frames: it ends with its header.")
    # A table of 3D or of boxes has more columns; what is not of 2D is of no use here.
    columns = [
        Column("", matches[i][1].strip(), matches[i][2].casefold()) for i in places
    ]
    values = _numbers(path, rows, places, [titles[i] for i in places])
    frames = _frames(path, rows, titles)
    found = []
    for name, chosen in _individuals(rows, titles).items():
        found += from_columns(
            [column._replace(individual=name) for column in columns],
            values[chosen],
            threshold=threshold,
            source=str(path),
            labels=None,
            frames=frames[chosen] if frames is not None else np.arange(len(chosen)),
            kind="plain table",
        )
    return found


def _frames(
    path: pathlib.Path, rows: _Rows, titles: Sequence[str]
) -> Int[np.ndarray, "f"] | None:
    """The numbers of the frames, where a column gives them."""
    for place, title in enumerate(titles):
        if title.casefold() in _NUMBERED:
            values = _numbers(path, rows, [place], [title])[:, 0]
            for (line, row), value in zip(rows, values, strict=True):
                if not (math.isfinite(value) and 0 <= value < _LARGEST):
                    raise LfmError(
                        f"{path}, line {line}, column '{title}': '{row[place]}' is not "
                        "the number of a frame: count from 0."
                    )
            return values.astype(int)
    return None


def _individuals(rows: _Rows, titles: Sequence[str]) -> dict[str, list[int]]:
    """The rows of each individual; one without a name where there is no such column."""
    for place, title in enumerate(titles):
        if title.casefold() in _NAMED:
            found = {}
            for i, (_, row) in enumerate(rows):
                found.setdefault(row[place].strip(), []).append(i)
            return found
    return {"": list(range(len(rows)))}
