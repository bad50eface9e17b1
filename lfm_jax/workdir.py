"""The work directory of a run: which files it holds, and how they are written.

    config.json         what was asked for; another config in the same place is refused
    versions.json       what it ran with
    split.json          which rows are training, validation and test
    skeletons.json      the categories (skeleton_io.py)
    tfds/               the prepared training set (data/dataset.py)
    factorization.npz   where training begins (train/start.py)
    metrics.jsonl       one object a line (metrics_io.py)
    checkpoints/        checkpoint.py
    confidence.json     how far to trust each keypoint (train/confidence.py)
    eval.json           the numbers of the test split
    report.html         the same to look at (viz/report.py)

A file is written beside its name and then moved there, so a reader never sees half of
one; metrics.jsonl grows by whole lines. Lifting reads config.json, skeletons.json,
factorization.npz and checkpoints/.
"""

import contextlib
import dataclasses
import errno
import hashlib
import importlib.metadata
import importlib.resources
import json
import os
import pathlib
import platform
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import ml_collections

from lfm_jax.config import Config, differences, from_config_dict, suggest
from lfm_jax.errors import LfmError

CONFIG, SPLIT, SKELETONS = "config.json", "split.json", "skeletons.json"
FACTORIZATION = "factorization.npz"
CONFIDENCE = "confidence.json"
WEIGHTS = pathlib.Path(str(importlib.resources.files("lfm_jax"))) / "weights"
DIGESTS = "digests.json"  # of a folder in which damage is to be noticed
_PACKAGES = ("lfm_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT),
    *(errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG),
)


def shipped() -> list[str]:
    """Names of the releases that come with the package."""
    return sorted(path.parent.name for path in WEIGHTS.glob(f"*/{DIGESTS}"))


def find(name: str | os.PathLike) -> pathlib.Path:
    """The folder of a release that is shipped, or of one, or of a run, by its path.

    Raises:
        LfmError: it is neither.
    """
    if str(name) in shipped():
        return WEIGHTS / name
    if pathlib.Path(name).is_dir():
        return pathlib.Path(name)
    raise LfmError(
        f"'{name}' is no folder, and no model that comes with the package"
        f"{suggest(str(name), shipped())}."
    )


@contextlib.contextmanager
def writing(workdir: os.PathLike | str) -> Iterator[None]:
    """Turns a full disk or a directory that cannot be written into an `LfmError`."""
    try:
        yield
    except OSError as error:
        place = error.filename or workdir
        if error.errno in _FULL:
            raise LfmError(
                f"The disk is full: {place} could not be written; make room and run "
                "the same command again, it goes on from the last checkpoint."
            ) from error
        if error.errno in _REFUSED:
            raise LfmError(
                f"{place} cannot be written ({os.strerror(error.errno)}); choose "
                "another folder, one of yours."
            ) from error
        raise


@contextlib.contextmanager
def claim(workdir: pathlib.Path, config: Config) -> Iterator[None]:
    """Makes `workdir` the place of this run, or finds that it already is.

    Within the context a run is built. If that fails by a mistake in its config or data,
    a place that was free before is free again, for the command without the mistake.

    Raises:
        LfmError: it holds a run of another config.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    claims = [workdir / name for name in (CONFIG, SPLIT, SKELETONS)]
    fresh = [path for path in claims if not path.exists()]
    # what the file does not say was the default before there was a choice
    stored = lambda path: dataclasses.asdict(read_config(path))
    claim_file(workdir / CONFIG, dataclasses.asdict(config), stored)
    try:
        yield
    except LfmError:
        for path in fresh:
            path.unlink(missing_ok=True)
        raise


def read_config(path: pathlib.Path) -> Config:
    """Reads the config of a run; a key that it lacks, being older, has its default.

    Raises:
        LfmError: the file is missing or damaged, or has a key that is none.
    """
    values = read_json(path)
    try:
        return from_config_dict(ml_collections.ConfigDict(values))
    except (TypeError, AttributeError, ValueError) as error:
        raise LfmError(
            f"{path} is not the config of a run: copy it from there again."
        ) from error


def claim_file(
    path: pathlib.Path,
    value: dict[str, Any],
    read: Callable[[pathlib.Path], dict[str, Any]] | None = None,
) -> None:
    """Writes `value`, or checks that the file holds just that.

    Args:
        path: the file.
        value: what it should hold.
        read: how to read it, if not as it is.

    Raises:
        LfmError: it holds something else; the sentence names the first differences.
    """
    if not path.exists():
        write_json(path, value)
        return
    # Through JSON, so that tuples compare equal to the lists they are stored as.
    changed = differences((read or read_json)(path), json.loads(json.dumps(value)))
    if changed:
        more = f" and {len(changed) - 4} more" if len(changed) > 4 else ""
        raise LfmError(
            f"{path.parent} belongs to another run by its {path.name} "
            f"({', '.join(changed[:4])}{more}); choose another folder or undo that."
        )


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes one JSON file; what stood there before stays until all is written."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes one text file atomically."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A place beside `path` to write to, which becomes `path` if nothing goes wrong."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


@contextlib.contextmanager
def saving(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """`replacing`, for a file that a user named; an `LfmError` if it cannot be."""
    try:
        with replacing(path) as beside:
            yield beside
    except OSError as error:
        raise LfmError(
            f"{path} cannot be written ({error.strerror or error}): choose another "
            "place."
        ) from error


def read_json(path: pathlib.Path) -> Any:
    """Reads one JSON file.

    Raises:
        LfmError: the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LfmError(
            f"There is no {path.name} to be read in {path.parent}; is that the "
            "--workdir of a run?"
        ) from error
    except (ValueError, RecursionError) as error:
        raise LfmError(f"{path} is damaged ({error}); delete it.") from error


def digests(folder: pathlib.Path) -> dict[str, str]:
    """SHA-256 of every file in a folder but its `DIGESTS`, by its place in there."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / DIGESTS:
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256")
            found[path.relative_to(folder).as_posix()] = digest.hexdigest()
    return found


def identity(folder: pathlib.Path) -> str:
    """A digest of what makes the network of a run, but for its weights."""
    digest = hashlib.sha256()
    for name in (CONFIG, SKELETONS, FACTORIZATION):
        digest.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """What the run runs with: source, interpreter and the packages that matter."""
    found = {"git": _git_sha(), "python": platform.python_version()}
    found["platform"] = platform.platform()
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _git_sha() -> str:
    """The commit of the source tree, "+" if it was edited; empty if installed."""
    root = pathlib.Path(__file__).parent.parent

    def git(*args: str) -> str:
        done = subprocess.run(
            ["git", *args], cwd=root, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        if not os.path.samefile(git("rev-parse", "--show-toplevel"), root):
            return ""  # installed into an environment that lies in another tree
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
