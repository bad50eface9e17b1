"""What was trained, to be handed on: a release, which lifts and cannot be trained on.

A release is a folder that `serve.Lifter.from_workdir` reads:

    skeletons.json, confidence.json, eval.json    as in a work directory
    config.json         the same, but for where the data were
    factorization.npz   the same, compressed
    checkpoints/        the averaged weights and the signs of depth (Orbax)
    weights.safetensors the same weights, by the names of Flax, for other programs
    lift.stablehlo      lifting as one program (`jax.export`), which needs JAX alone
    digests.json        SHA-256 of every file; `load` refuses what has changed

The releases in lfm_jax/weights come with the package.
"""

import dataclasses
import os
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from lfm_jax import lifting, workdir
from lfm_jax.checkpoint import read_weights, write_weights
from lfm_jax.errors import LfmError
from lfm_jax.serve import Lifter, read_model
from lfm_jax.types import Observation

COPIED = (workdir.SKELETONS, workdir.CONFIDENCE, "eval.json")
PLATFORMS = ("cpu", "cuda", "tpu")


def load(name: str | os.PathLike) -> Lifter:
    """A model that lifts.

    Args:
        name: of a release that comes with the package, or the path of a release or of
            the work directory of a run.

    Raises:
        LfmError: there is none, or a file of the release is not what was written.
    """
    folder = workdir.find(name)
    if (folder / workdir.DIGESTS).exists():
        expected, found = (
            workdir.read_json(folder / workdir.DIGESTS),
            workdir.digests(folder),
        )
        for file in expected:
            if found.get(file) != expected[file]:
                raise LfmError(
                    f"{folder / file} is damaged or missing: install the package, or "
                    "export the run, again."
                )
    return Lifter.from_workdir(folder)


def write_release(run: pathlib.Path, out: pathlib.Path, small: bool = False) -> None:
    """Makes a release of a run that has come to its end.

    Args:
        run: its work directory.
        out: the folder to make; it must not exist.
        small: leave out what only other programs read.

    Raises:
        LfmError: the run has not ended, the folder is there or cannot be written, or
            the packages are missing that write for other programs.
    """
    if not (run / "eval.json").exists():
        raise LfmError(f"{run} holds no run that has come to its end; train first.")
    if out.exists():
        raise LfmError(f"{out} is there already: choose another place.")
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        beside.mkdir(parents=True)
        _fill(run, beside)
        if not small:
            _fill_for_others(run, beside)
        workdir.write_json(beside / workdir.DIGESTS, workdir.digests(beside))
        os.replace(beside, out)
    except OSError as error:
        raise LfmError(
            f"{out} cannot be written ({error.strerror or error}): choose another "
            "place."
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _fill(run: pathlib.Path, out: pathlib.Path) -> None:
    for name in COPIED:
        shutil.copyfile(run / name, out / name)
    config = dataclasses.asdict(workdir.read_config(run / workdir.CONFIG))
    config["data"]["dir"] = pathlib.Path(config["data"]["dir"]).name
    workdir.write_json(out / workdir.CONFIG, config)
    with np.load(run / workdir.FACTORIZATION, allow_pickle=False) as arrays:
        np.savez_compressed(out / workdir.FACTORIZATION, **arrays)
    write_weights(out / "checkpoints", read_weights(run / "checkpoints"))


def _fill_for_others(run: pathlib.Path, out: pathlib.Path) -> None:
    try:
        from safetensors.numpy import save_file
    except ImportError as error:
        raise LfmError(
            "Weights and programs for others need pip install 'lfm_jax[export]'; "
            "--small leaves them out."
        ) from error
    weights = read_weights(run / "checkpoints")
    leaves = jax.tree_util.tree_leaves_with_path(weights.params)
    named = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in leaves
    }
    save_file(named | {"depth_sign": weights.depth_sign}, out / "weights.safetensors")
    (out / "lift.stablehlo").write_bytes(stablehlo(run))


def stablehlo(run: pathlib.Path) -> bytes:
    """Lifting as `jax.export.deserialize(...).call(points2d, observed, category)`.

    points2d [b n 2], observed [b n] bool, category [b] int32, with n the keypoints of
    the largest category and any b; the result is a dict of canonical, posed and lifted
    [b n 3], in the units of points2d, see `types.Prediction`.
    """
    model, params, decided, skeletons, _ = read_model(run)
    signs = jnp.where(decided == 0.0, 1.0, decided)

    def lift(points2d, observed, category):
        seen = Observation(points2d, observed, observed, category)
        found = lifting.lift(model.apply, params, seen, signs[category])
        names = ("canonical", "posed", "lifted")
        return {name: getattr(found, name) for name in names}

    (frames,) = export.symbolic_shape("b")
    width = max(len(skeleton.keypoints) for skeleton in skeletons)
    wanted = (
        jax.ShapeDtypeStruct((frames, width, 2), jnp.float32),
        jax.ShapeDtypeStruct((frames, width), jnp.bool_),
        jax.ShapeDtypeStruct((frames,), jnp.int32),
    )
    exported = export.export(jax.jit(lift), platforms=PLATFORMS)(*wanted)
    return bytes(exported.serialize())
