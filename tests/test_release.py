"""Laws of releases: they lift as their run did, elsewhere too, and notice damage."""

import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from test_serve import DOG, FRAMES, HAND, folder, folders, trust  # noqa: F401

import lfm_jax
from lfm_jax import cli, metrics, release, workdir
from lfm_jax.checkpoint import read_weights
from lfm_jax.errors import LfmError
from lfm_jax.geometry.rotations import random_rotation
from lfm_jax.rigs import zoo
from lfm_jax.serve import Lifter
from lfm_jax.workdir import CONFIDENCE, write_json


@pytest.fixture(scope="module")
def run(folder):  # noqa: F811
    """The tiny random network of test_serve, as if it had come to its end."""
    tables = {one.name: trust(one).to_json() for one in (HAND, DOG)}
    write_json(folder / CONFIDENCE, tables)
    write_json(folder / "eval.json", {})
    return folder


@pytest.fixture
def made(run, tmp_path):
    release.write_release(run, tmp_path / "made")
    return tmp_path / "made"


def test_it_lifts_as_its_run(run, made):
    here, there = Lifter.from_workdir(run), lfm_jax.load(made)
    one, other = (x.lift(FRAMES, category="dog") for x in (here, there))
    np.testing.assert_array_equal(one.points3d, other.points3d)
    np.testing.assert_array_equal(one.confidence, other.confidence)
    assert one.depth_sign == other.depth_sign == "chosen on validation"


def test_the_program_lifts_the_same_without_this_package(run, made, tmp_path):
    """Any number of frames, of any category, hidden points among them."""
    hidden = FRAMES.copy()
    hidden[:, 3] = np.nan
    lifted = Lifter.from_workdir(run).lift(hidden, category="dog")
    observed = np.isfinite(hidden).all(-1)
    category = np.full(len(FRAMES), 1, np.int32)
    shown = np.where(observed[..., None], hidden, 0.0).astype(np.float32)
    np.savez(tmp_path / "in.npz", shown, observed, category)
    code = (
        "import sys; sys.modules['lfm_jax'] = None\n"
        "import jax, jax.export, numpy as np\n"
        "program = jax.export.deserialize(open(sys.argv[1], 'rb').read())\n"
        "given = list(np.load(sys.argv[2]).values())\n"
        "whole = program.call(*given)\n"
        "one = program.call(*(x[:1] for x in given))\n"
        "np.savez(sys.argv[3], whole=whole['lifted'], one=one['lifted'])"
    )
    places = made / "lift.stablehlo", tmp_path / "in.npz", tmp_path / "out.npz"
    subprocess.run(
        [sys.executable, "-c", code, *map(str, places)], check=True, cwd=tmp_path
    )
    found = np.load(places[2])
    size = np.abs(lifted.points3d).max()
    np.testing.assert_allclose(found["whole"], lifted.points3d, atol=1e-3 * size)
    np.testing.assert_allclose(found["one"], lifted.points3d[:1], atol=1e-3 * size)


def test_other_programs_get_the_same_numbers(run, made):
    weights = read_weights(run / "checkpoints")
    found = load_file(made / "weights.safetensors")
    np.testing.assert_array_equal(found["depth_sign"], weights.depth_sign)
    head = np.asarray(weights.params["head"]["kernel"])
    np.testing.assert_array_equal(found["head/kernel"], head)


def test_a_file_that_has_changed_is_refused(made):
    files = [p for p in made.rglob("*") if p.is_file() and p.name != "digests.json"]
    for path in files:
        before = path.read_bytes()
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]) if before else b"x")
        with pytest.raises(LfmError, match="damaged"):
            release.load(made)
        path.unlink()
        with pytest.raises(LfmError, match="damaged or missing"):
            release.load(made)
        path.write_bytes(before)
    assert len(files) > 8
    release.load(made)


def test_mistakes_are_one_sentence(folders, made, capsys):  # noqa: F811
    for command, hint in (
        (["export", str(folders[1]), f"--out={made}-2"], "come to its end"),
        (["export", str(made), f"--out={made}"], "there already"),
    ):
        assert cli.main(command) == 2
        error = capsys.readouterr().err
        assert hint in error and len(error.strip().splitlines()) == 1
    assert not pathlib.Path(f"{made}-2").exists()
    with pytest.raises(LfmError, match="no model that comes with the package"):
        lfm_jax.load("lfm2d-smal")


def test_a_missing_package_is_named_and_nothing_is_left(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(LfmError, match=r"lfm_jax\[export\].*--small"):
        release.write_release(run, tmp_path / "made")
    assert not list(tmp_path.iterdir())
    release.write_release(run, tmp_path / "made", small=True)


def test_what_comes_with_the_package_lifts():
    """A dog that it has not seen: better than flat, and small enough to be shipped."""
    lifter = lfm_jax.load()
    truth = zoo.sample_category("dog", seed=9).points3d[:40]
    turn = np.asarray(random_rotation(jax.random.key(0), (40,)))
    shape = np.einsum("fij,fnj->fni", turn, truth).astype(np.float32)
    true = jnp.asarray(shape)
    lifted = lifter.lift(shape[..., :2], category="dog").points3d
    flat = np.concatenate([shape[..., :2], 0.0 * shape[..., :1]], axis=-1)
    mask = jnp.ones(shape.shape[:2], bool)
    ours, theirs = (
        np.mean(metrics.ne(jnp.asarray(x), true, mask)) for x in (lifted, flat)
    )
    assert ours < 0.5 * theirs
    files = [p for p in workdir.WEIGHTS.rglob("*") if p.is_file()]
    assert sum(path.stat().st_size for path in files) < 10e6


def test_a_release_of_a_release_is_the_same(made, tmp_path):
    release.write_release(made, tmp_path / "again")
    one, other = (release.load(x) for x in (made, tmp_path / "again"))
    lifted = [x.lift(FRAMES, category="dog").points3d for x in (one, other)]
    np.testing.assert_array_equal(*lifted)
