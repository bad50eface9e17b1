"""Arrays of .npz files that strangers made: read whole, or refused in a sentence.

Nothing is unpickled, and nothing is unpacked to a place on the disk; names that would
leave one are refused all the same, as nobody honest writes them. Nor may a small file
fill the memory.
"""

import pathlib
import warnings
import zipfile
from collections.abc import Collection

import numpy as np

from lfm_jax.errors import LfmError

UNFOLDED = 1 << 28  # bytes that any file may unfold to; or
DENSE = 8  # times its size: of coordinates nothing is denser


def read_arrays(
    path: pathlib.Path, keys: Collection[str]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays under `keys` that a file has, and the names of its other arrays.

    Raises:
        LfmError: the file is missing, damaged or pickled, or a trap.
    """
    try:
        # Opened here: np.load leaves a damaged file open.
        with (
            warnings.catch_warnings(action="ignore"),
            path.open("rb") as file,
            np.load(file, allow_pickle=False) as archive,
        ):
            _refuse_traps(path, archive.zip.infolist(), keys)
            arrays = {key: archive[key] for key in keys if key in archive.files}
            others = [key for key in archive.files if key not in keys]
    except LfmError:
        raise
    except OSError as error:
        raise LfmError(
            f"{path} cannot be read ({error.strerror or error}): check the path."
        ) from error
    # Damaged bytes reach zipfile, zlib, struct and the header's parser, and each has
    # exceptions of its own.
    except Exception as error:
        reason = "is damaged or no npz file"
        if "pickle" in str(error):  # numpy says so of all that it does not know
            whole = zipfile.is_zipfile(path)
            reason = "holds pickled objects" if whole else "is pickled or no npz file"
        raise LfmError(
            f"{path} {reason}: write it again with numpy.savez and plain arrays."
        ) from error
    for key, array in arrays.items():
        if not _is_plain(array):
            raise LfmError(
                f"{path}: {key} is not a plain array: write it with numpy.savez."
            )
    return arrays, others


def _is_plain(array: object) -> bool:
    """Whether it is an array, in which every number of a letter is one of Unicode's."""
    if not isinstance(array, np.ndarray) or (array.size and not array.nbytes):
        return False  # what takes no bytes can have any length
    if array.dtype.kind != "U" or not array.size:
        return True
    letters = array.reshape(-1).view(f"{array.dtype.str[0]}u4")
    half = letters >> 11 == 0xD800 >> 11  # of a pair, which no file can be written with
    return bool(np.all((letters < 0x110000) & ~half))


def _refuse_traps(path, members: list[zipfile.ZipInfo], keys) -> None:
    """Reading a member never gives more bytes than its entry says."""
    for member in members:
        place = pathlib.PureWindowsPath(member.filename)  # knows both kinds of slashes
        if place.root or ".." in place.parts:
            raise LfmError(
                f"{path} has a member {member.filename!r}, which lies outside of it: "
                "write it again with numpy.savez."
            )
    wanted = [m for m in members if m.filename.removesuffix(".npy") in keys]
    unfolded = sum(member.file_size for member in wanted)
    refuse_unfolding(path, unfolded)


def refuse_unfolding(path: pathlib.Path, unfolded: int) -> None:
    """Raises `LfmError` if so many bytes are many times what the file has."""
    if unfolded > max(UNFOLDED, DENSE * path.stat().st_size):
        raise LfmError(
            f"{path} would unfold to {unfolded / 1e6:.0f} MB, many times its size: "
            "write again what is needed of it."
        )
