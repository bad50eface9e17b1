"""Feeds damaged files to every reader and to the parser of configs, and tallies.

    pip install atheris
    python benchmarks/fuzz.py --inputs=100000 --out=runs/fuzz

Inputs come from atheris, which looks for those that reach new lines of this package, or
with --plain from a seeded generator. They grow out of small valid files; members of
.npz files are mutated inside, so that checksums fit. Each must be read or refused by an
`LfmError`, within 5 s of processor time and 1 GB, and without starting a program,
connecting, or unpickling anything. HDF5 is read in a process of its own, which takes
seconds, so that it gets few. The exit status is 1 if any input does otherwise; it lies
in --out.
"""

import argparse
import collections
import contextlib
import dataclasses
import io
import json
import logging
import math
import pathlib
import random
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable

import numpy as np

SECONDS, MEGABYTES = 5, 1024
LONGEST = 20_000  # bytes of an input
FORBIDDEN = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "socket.")
ROOT = pathlib.Path(__file__).parents[1]
# Weight of each kind in the number of inputs.
KINDS = {
    **{"table.csv": 20, "plain.csv": 20, "coco.json": 20, "landmarks.json": 20},
    **{"keypoints.npz": 15, "archive.npz": 15, "lifted.npz": 10},
    **{"argument": 20, "config.json": 20, "skeletons.json": 10, "metrics.jsonl": 5},
    **{"deeplabcut.h5": 0.1, "poses.nwb": 0.1},
}


# ------------------------------------------------------------------ valid small files


def valid(kind: str) -> bytes:
    """What all inputs of a kind grow out of."""
    points = np.random.default_rng(0).normal(size=(4, 3, 2)).round(2) * 100
    names = np.array(["nose", "hip", "tail"])
    seen = np.concatenate([points, np.full((4, 3, 1), 2.0)], axis=-1)
    titles = "scorer,s,s\nbodyparts,a,a\ncoords,x,y\n"
    return {
        "table.csv": lambda: _csv(points, titles, True),
        "plain.csv": lambda: _csv(points, "frame,track,nose_x,nose_y\n", False),
        "coco.json": lambda: _json(
            {
                "categories": [{"id": 1, "keypoints": names.tolist()}],
                "annotations": [
                    {"id": i, "category_id": 1, "keypoints": row}
                    for i, row in enumerate(seen.reshape(4, -1).tolist())
                ],
            }
        ),
        "landmarks.json": lambda: _json(
            [
                {"pose_landmarks": [{"x": x, "y": y, "visibility": 0.9} for x, y in f]}
                for f in points.tolist()
            ]
        ),
        "keypoints.npz": lambda: _npz(points2d=points, names=names, fps=np.array(25.0)),
        "archive.npz": lambda: _npz(
            points2d=points,
            names=names,
            units=np.array("unit"),
            edges=np.array([[0, 1]], np.int32),
            sequence=np.zeros(4, np.int32),
        ),
        "lifted.npz": _lifted,
        "argument": lambda: b"debug,train.steps=7,data.only=car,optim.clip=0.5",
        "config.json": lambda: _json(_config()),
        "skeletons.json": lambda: _json(
            [
                {"name": "a", "keypoints": ["b", "c"], "edges": [[0, 1]]}
                | {"units": "mm", "has_truth": True}
            ]
        ),
        "metrics.jsonl": lambda: b'{"step": 1, "loss": 2.0}\n{"step": 2}\n',
        "deeplabcut.h5": lambda: _hdf5("table", points),
        "poses.nwb": lambda: _hdf5("poses", points),
    }[kind]()


def _csv(points, header, titled):
    name = "" if titled else "a,"
    rows = [f"{i},{name}{x},{y}" for i, (x, y) in enumerate(points[:, 0])]
    return (header + "\n".join(rows)).encode()


def _json(content) -> bytes:
    return json.dumps(content).encode()


def _npz(**arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _config():
    from lfm_jax.config import Config

    return dataclasses.asdict(Config())


def _lifted() -> bytes:
    shapes = {
        **{"points3d": (2, 3, 3), "canonical": (2, 3, 3), "posed": (2, 3, 3)},
        **{"points2d": (2, 3, 2), "rotation": (2, 3, 3), "translation": (2, 2)},
        **{"expected_error": (2, 3), "confidence": (2, 3), "scale": (2,)},
        **{"reprojection": (2,)},
    }
    arrays = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    texts = ("category", "depth_sign", "individual", "units")
    return _npz(
        **arrays,
        **{name: np.array("a") for name in texts},
        names=np.array(["a", "b", "c"]),
        labels=np.array(["d", "e"]),
        unknown=np.array([], str),
        edges=np.array([[0, 1]], np.int32),
        visible=np.ones((2, 3), bool),
        unusual=np.zeros(2, bool),
        frames=np.arange(2),
        fps=np.array(25.0),
        unit_length=np.array(1.0),
    )


def _hdf5(kind: str, points) -> bytes:
    import h5py

    file = io.BytesIO()
    with h5py.File(file, "w") as tree:
        if kind == "poses":
            pose = tree.create_group("processing/pose")
            pose.attrs["neurodata_type"] = "PoseEstimation"
            series = pose.create_group("nose")
            series.attrs["neurodata_type"] = "PoseEstimationSeries"
            series["data"], series["confidence"] = points[:, 0], np.ones(len(points))
        else:
            table = tree.create_group("df")
            table.attrs["pandas_type"], table.attrs["nblocks"] = "frame", 1
            table.attrs["block0_items_nlevels"] = 3
            for level, names in enumerate(([b"net"], [b"nose"], [b"x", b"y"])):
                table[f"block0_items_level{level}"] = np.array(names)
                table[f"block0_items_label{level}"] = np.arange(2) % len(names)
            table["block0_values"] = points[:, 0]
            table["axis1"] = np.arange(len(points))
    return file.getvalue()


# ------------------------------------------------------------------------- what reads


def reader(kind: str) -> Callable[[pathlib.Path], object]:
    """What is given the files of a kind."""
    if kind == "argument":
        from lfm_jax.config import from_config_dict, parse_arg

        return lambda path: from_config_dict(
            parse_arg(path.read_bytes().decode(errors="replace"), {"debug": {}})
        )
    if kind == "archive.npz":
        from lfm_jax.data.archive import read_category

        return read_category
    if kind == "lifted.npz":
        from lfm_jax.writers import read_lifted

        return read_lifted
    if kind == "config.json":
        from lfm_jax.workdir import read_config

        return read_config
    if kind == "skeletons.json":
        from lfm_jax.skeleton_io import read_skeletons

        return read_skeletons
    if kind == "metrics.jsonl":
        from lfm_jax.metrics_io import MetricsWriter

        return lambda path: MetricsWriter(path, 10**6, silent=True)
    from lfm_jax.data.readers import read_keypoints

    return read_keypoints


class Misbehaved(Exception):
    """What an input may not bring about."""


class Trial:
    """Gives inputs to one reader and counts what comes of them.

    Attributes:
        tally: how many were read, and how many refused.
        said: the last sentence of those.
    """

    def __init__(self, kind: str, folder: pathlib.Path):
        self.tally, self._read = collections.Counter(), reader(kind)
        self._path = folder / kind
        self._apart = kind.endswith((".h5", ".nwb"))
        self(valid(kind))
        if not self.tally["read"]:
            raise Misbehaved(f"the valid file is refused: {self.said}")
        self.tally.clear()

    def __call__(self, content: bytes) -> None:
        from lfm_jax.errors import LfmError

        self._path.write_bytes(content)
        begun = time.process_time()
        try:
            with watched(self._apart):
                self._read(self._path)
            self.tally["read"] += 1
        except LfmError as error:
            if not str(error).isprintable():
                raise Misbehaved(f"not one line: {error}") from error
            self.tally["refused"] += 1
            self.said = str(error)
        if time.process_time() - begun > SECONDS:
            raise Misbehaved(f"took {time.process_time() - begun:.0f} s")
        if _peak_megabytes() > MEGABYTES:
            raise Misbehaved(f"took {_peak_megabytes():.0f} MB")


def _peak_megabytes() -> float:
    """Of this program; getrusage has that of the one which started it, if larger."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


_watching = []


@contextlib.contextmanager
def watched(apart: bool):
    """Within, the forbidden raises, and what hangs is ended."""

    def late(*_):
        raise Misbehaved(f"took more than {SECONDS} s")

    signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    if not apart:  # or it starts a process of ours
        _watching.append(True)
    try:
        yield
    finally:
        _watching.clear()
        signal.setitimer(signal.ITIMER_PROF, 0)


def _listen(event: str, _) -> None:
    if _watching and event.startswith(FORBIDDEN):
        raise Misbehaved(f"{event} was called")


# --------------------------------------------------------------------------- mutation


def mutate(content: bytes, size: int, change: Callable[[bytes, int], bytes]) -> bytes:
    """Changes a file, or, of an .npz and every other time, one of its members."""
    if len(content) % 2 or not content.startswith(b"PK"):
        return change(content, size)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as old:
            members = {name: old.read(name) for name in old.namelist()}
    except Exception:  # already damaged
        members = {}
    if not members:
        return change(content, size)
    name = list(members)[len(content) // 2 % len(members)]
    members[name] = change(members[name], size)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as new:
        for name, member in members.items():
            new.writestr(name, member)
    return file.getvalue() + b"\n" * (len(members[name]) % 2)


def plainly(draw: random.Random) -> Callable[[bytes, int], bytes]:
    """Bytes replaced, repeated, left out and put in, the end cut off."""
    tokens = (b"0", b"-1", b"1e400", b"nan", b"null", b"[", b'"', b",", b"\n", b"\xff")

    def change(content: bytes, size: int) -> bytes:
        for _ in range(draw.choice((1, 1, 2, 4))):
            at, length = draw.randint(0, len(content)), draw.randint(0, 8)
            kind, rest = draw.randrange(5), content[at + length :]
            middle = content[at : at + length]
            new = (
                draw.choice(tokens),
                draw.choice(tokens) + middle,
                b"",
                middle * draw.randint(2, 40),
                draw.randbytes(length),
            )[kind]
            content = content[:at] + new + rest
        cut = draw.randint(0, len(content)) if draw.random() < 0.1 else size
        return content[: min(cut, size)]

    return change


# --------------------------------------------------------------------------- running


def run_plain(kind: str, inputs: int, out: pathlib.Path) -> dict:
    """Each input is a valid file, changed up to three times."""
    draw, start = random.Random(f"0 {kind}"), valid(kind)
    trial, change = Trial(kind, out), plainly(draw)
    for _ in range(inputs):
        content = start
        for _ in range(draw.choice((1, 1, 2))):
            content = mutate(content, LONGEST, change)
        try:
            trial(content)
        except Exception:
            (out / f"crash-{kind}").write_bytes(content)
            raise
    return dict(trial.tally)


def run_guided(kind: str, inputs: int, out: pathlib.Path) -> None:
    """Does not come back: atheris ends the process; the tally is in a file by then."""
    import atheris

    with atheris.instrument_imports(include=["lfm_jax"]):
        trial = Trial(kind, out)
    corpus = out / f"corpus-{kind}"
    corpus.mkdir()
    (corpus / "valid").write_bytes(valid(kind))

    def one(content: bytes) -> None:
        trial(content)
        if trial.tally.total() % 100 == 0 or trial.tally.total() >= inputs:
            (out / f"tally-{kind}").write_text(json.dumps(trial.tally))

    def change(content: bytes, size: int, seed: int) -> bytes:
        return mutate(content, size, atheris.Mutate)[:size]

    limits = [f"-runs={inputs}", f"-max_len={LONGEST}", f"-rss_limit_mb={MEGABYTES}"]
    # time is measured here, as that of the processor
    limits += ["-timeout=120", "-seed=1", f"-artifact_prefix={out}/crash-{kind}-"]
    atheris.Setup([sys.argv[0], *limits, str(corpus)], one, custom_mutator=change)
    atheris.Fuzz()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--plain", action="store_true", help="without atheris")
    parser.add_argument("--kind", choices=KINDS, help="one, with all of the inputs")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    sys.addaudithook(_listen)
    logging.disable()
    if given.kind and not given.plain:
        run_guided(given.kind, given.inputs, given.out)
    whole, failed = sum(KINDS.values()), 0
    for kind, weight in KINDS.items():
        inputs = math.ceil(given.inputs * weight / whole)
        if given.plain:
            tally = run_plain(kind, inputs, given.out)
        else:
            tally, broken = _apart(kind, inputs, given.out)
            failed += broken
        print(f"{kind}: {sum(tally.values())} inputs, {tally}", flush=True)
    return bool(failed)


def _apart(kind: str, inputs: int, out: pathlib.Path) -> tuple[dict, bool]:
    """The tally of a kind, fuzzed in a process of its own, and whether it crashed."""
    program = [sys.executable, __file__, f"--kind={kind}", f"--inputs={inputs}"]
    with (out / f"log-{kind}").open("w") as log:
        done = subprocess.run(
            [*program, f"--out={out}"], stdout=log, stderr=log, cwd=ROOT
        )
    if done.returncode:
        print(f"{kind}: status {done.returncode}, see {log.name}")
    tally = out / f"tally-{kind}"
    return json.loads(tally.read_text()) if tally.exists() else {}, done.returncode != 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
