"""The whole loop on a tiny run: every file, exact resume, and every way to go wrong."""

import dataclasses
import errno
import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest

from lfm_jax.checkpoint import Checkpoints, read_weights
from lfm_jax.config import Config, TrainConfig
from lfm_jax.data.archive import Category, read_category, write_category
from lfm_jax.errors import LfmError
from lfm_jax.lifting import FEW
from lfm_jax.metrics_io import MetricsWriter, read_metrics
from lfm_jax.serve import Lifter
from lfm_jax.train import loop
from lfm_jax.viz.report import report_run
from lfm_jax.workdir import CONFIG, SKELETONS, claim, write_json

STEPS = 20
FILES = ("five", "seven")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Two small categories with 3D, of 5 and 7 keypoints."""
    directory = tmp_path_factory.mktemp("archive")
    random = np.random.default_rng(0)
    for name, n in zip(FILES, (5, 7), strict=True):
        mean, basis = random.normal(size=(2, n, 3))
        points = mean + 0.3 * random.normal(size=(80, 1, 1)) * basis
        category = Category(
            name=name,
            keypoints=tuple(f"point_{i}" for i in range(n)),
            edges=np.array([(i, i + 1) for i in range(n - 1)]),
            units="unit",
            sequence=np.arange(80),
            points3d=points.astype(np.float32),
        )
        write_category(directory / f"{name}.npz", category)
    return directory


@pytest.fixture(scope="module")
def config(archive):
    small = Config()
    return dataclasses.replace(
        small,
        data=dataclasses.replace(small.data, dir=str(archive)),
        model=dataclasses.replace(small.model, width=16, layers=1, heads=2, bases="1"),
        train=TrainConfig(
            steps=STEPS,
            per_category=2,
            log_every=5,
            validate_every=10,
            checkpoint_every=10,
        ),
    )


def standing(config, workdir):
    """The newest state of a run, and the batch that comes next."""
    built = loop.build(config, workdir)
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        found = loop.restore(built, checkpoints)
    return found.state, next(found.batches)


def bits(tree):
    def data(x):
        typed_key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if typed_key else x).tobytes()

    return {
        jax.tree_util.keystr(path): data(leaf)
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


def untimed(workdir):
    lines = read_metrics(workdir / "metrics.jsonl")
    return [{k: v for k, v in x.items() if "per_second" not in k} for x in lines]


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """A run from beginning to end without a stop."""
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, loop.train_and_evaluate(config, str(workdir))


def test_every_file_of_the_work_directory_is_written(whole):
    workdir, results = whole
    for name in ("config", "versions", "split", "skeletons"):
        assert json.loads((workdir / f"{name}.json").read_text()), name
    numbers = json.loads((workdir / "eval.json").read_text())
    assert numbers == json.loads(json.dumps(results.numbers))
    assert numbers["step"] == STEPS
    assert set(numbers["categories"]) == {"five", "seven"}
    trust = json.loads((workdir / "confidence.json").read_text())
    assert {name: len(own["seen"]) for name, own in trust.items()} == {
        name: entry["keypoints"] for name, entry in numbers["categories"].items()
    }
    assert sum(b["points"] for b in numbers["calibration"])
    logged = [line["step"] for line in untimed(workdir) if "loss" in line]
    assert logged == [5, 10, 15, 20]
    assert not [path for path in workdir.iterdir() if path.name.startswith(".")]


def test_stopping_and_going_on_changes_no_bit(config, whole, tmp_path, monkeypatch):
    write = MetricsWriter.write

    def terminate_at_ten(writer, step, scalars):
        if step == 10 and "loss" in scalars:
            os.kill(os.getpid(), signal.SIGTERM)
        write(writer, step, scalars)

    shutil.copy(whole[0] / "factorization.npz", tmp_path)
    monkeypatch.setattr(MetricsWriter, "write", terminate_at_ten)
    with pytest.raises(SystemExit) as stopped:
        loop.train_and_evaluate(config, str(tmp_path))
    monkeypatch.undo()
    assert stopped.value.code == 128 + signal.SIGTERM
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.steps == [10]
    # nothing claims to know a sign of depth before one is chosen
    assert not read_weights(tmp_path / "checkpoints").depth_sign.any()

    results = loop.train_and_evaluate(config, str(tmp_path))
    assert bits(standing(config, tmp_path)) == bits(standing(config, whole[0]))
    assert untimed(tmp_path) == untimed(whole[0])
    assert results.numbers == whole[1].numbers
    assert read_weights(tmp_path / "checkpoints").depth_sign.all()


@pytest.mark.parametrize("mode", ["train_and_eval", "eval"])
def test_a_finished_run_is_only_evaluated_again(config, whole, mode):
    workdir, results = whole
    checkpoints = sorted((workdir / "checkpoints").iterdir())
    lines = (workdir / "metrics.jsonl").read_text()
    again = loop.train_and_evaluate(config, str(workdir), mode)
    assert again.numbers == results.numbers
    assert sorted((workdir / "checkpoints").iterdir()) == checkpoints
    assert (workdir / "metrics.jsonl").read_text() == lines


def test_the_seed_changes_the_weights_and_the_batches(config, whole, tmp_path):
    shutil.copy(whole[0] / "factorization.npz", tmp_path)
    one, other = (
        loop.build(dataclasses.replace(config, seed=seed), tmp_path) for seed in (0, 1)
    )
    assert bits(one.init().params) != bits(other.init().params)
    assert bits(next(iter(one.batches))) != bits(next(iter(other.batches)))


def test_another_config_is_refused_with_the_difference(config, whole):
    other = dataclasses.replace(config, seed=3)
    with pytest.raises(LfmError, match="seed was 0 and is now 3"):
        loop.train_and_evaluate(other, str(whole[0]))


def test_a_config_from_before_a_key_is_that_of_its_default(config, tmp_path):
    older = dataclasses.asdict(config)
    del older["model"]["name"]
    write_json(tmp_path / CONFIG, older)
    with claim(tmp_path, config):
        pass
    other = dataclasses.replace(config.model, name="lfm3d")
    with pytest.raises(LfmError, match="model.name was 'lfm2d' and is now 'lfm3d'"):
        with claim(tmp_path, dataclasses.replace(config, model=other)):
            pass


@pytest.mark.parametrize(
    "mistake", [{"encoding": "none"}, {"bases": "two"}, {"heads": 3}]
)
def test_after_a_mistake_the_work_directory_is_free(config, mistake, tmp_path):
    model = dataclasses.replace(config.model, **mistake)
    with pytest.raises(LfmError, match="model."):
        loop.train_and_evaluate(dataclasses.replace(config, model=model), str(tmp_path))
    with claim(tmp_path, config):
        pass


def test_other_keypoints_in_the_same_place_are_refused(config, whole):
    path = whole[0] / SKELETONS
    before = path.read_text()
    try:
        path.write_text(before.replace('"five"', '"six"'))
        with pytest.raises(LfmError, match="another run"):
            loop.train_and_evaluate(config, str(whole[0]))
    finally:
        path.write_text(before)


def test_nothing_to_evaluate(config, tmp_path):
    with pytest.raises(LfmError, match="no checkpoint"):
        loop.train_and_evaluate(config, str(tmp_path), "eval")
    with claim(tmp_path, dataclasses.replace(config, seed=9)):
        pass


def test_training_changes_what_is_evaluated(config, whole):
    state, _ = standing(config, whole[0])
    first = loop.build(config, whole[0]).init()
    assert bits(state.averaged) != bits(first.averaged)
    assert bits(state.averaged) != bits(state.params)
    for entry in whole[1].numbers["categories"].values():
        assert entry["ne_lifted"] != entry["ne_start_lifted"]


def assert_lifts_as_evaluated(lifter, results, seen, name):
    expected = results.predict(seen).lifted
    # so many frames that the same program lifts them: others round differently
    again = np.tile(seen.points2d, (FEW, 1, 1))
    lifted = lifter.lift(again, category=name)
    found = lifted.points3d[: len(expected)]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert lifted.depth_sign == "chosen on validation"


def test_what_the_loop_wrote_lifts_as_it_was_evaluated(whole):
    workdir, results = whole
    lifter = Lifter.from_workdir(workdir)
    for part, name in zip(results.dataset.evaluation.test, FILES, strict=True):
        assert_lifts_as_evaluated(lifter, results, part.observation, name)


def test_images_alone_are_enough(config, archive, tmp_path):
    for name in FILES:
        category = read_category(archive / f"{name}.npz")
        flat = dataclasses.replace(
            category, points3d=None, points2d=category.points3d[..., :2]
        )
        (tmp_path / "images").mkdir(exist_ok=True)
        write_category(tmp_path / "images" / f"{name}.npz", flat)
    data = dataclasses.replace(config.data, dir=str(tmp_path / "images"), camera="real")
    train = dataclasses.replace(config.train, steps=2)
    model = dataclasses.replace(config.model, bases="")
    config = dataclasses.replace(config, data=data, train=train, model=model)
    results = loop.train_and_evaluate(config, str(tmp_path / "run"))
    assert results.numbers["mean"]["reprojection"] > 0.0
    for entry in results.numbers["categories"].values():
        assert entry["depth_sign"] == "undetermined" and "ne_lifted" not in entry
    report_run(results, tmp_path / "run")
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "objective"),
    [
        ("lfm2d", {}),
        ("lfm3d", {"supervised": True, "alignment": "procrustes"}),
    ],
)
def test_published_networks_train_without_a_start(config, name, objective, tmp_path):
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, name=name, bases=""),
        objective=dataclasses.replace(config.objective, **objective),
        train=dataclasses.replace(config.train, steps=2),
    )
    results = loop.train_and_evaluate(config, str(tmp_path))
    assert "ne_lifted" in results.numbers["mean"]
    assert "ne_start" not in results.numbers["mean"]
    # the widest, which nothing pads: it is lifted by the same program
    seen = results.dataset.evaluation.test[-1].observation
    lifter = Lifter.from_workdir(tmp_path)
    assert_lifts_as_evaluated(lifter, results, seen, FILES[-1])


def test_without_patience_left_training_ends_and_does_not_go_on(config, tmp_path):
    """What does not move gains nothing: the second validation is the last."""
    config = dataclasses.replace(
        config,
        # by queries and keys alone all points are one at first, but for rounding
        model=dataclasses.replace(config.model, bases="", inject_values=True),
        optim=dataclasses.replace(config.optim, learning_rate=1e-30),
        train=dataclasses.replace(config.train, validate_every=2, patience=1),
    )
    first = loop.train_and_evaluate(config, str(tmp_path))
    assert first.numbers["step"] == 4 < STEPS
    lines = (tmp_path / "metrics.jsonl").read_text()
    again = loop.train_and_evaluate(config, str(tmp_path))
    assert again.numbers == first.numbers
    assert (tmp_path / "metrics.jsonl").read_text() == lines


def test_an_unknown_mode(config, tmp_path):
    with pytest.raises(LfmError, match="train_and_eval"):
        loop.train_and_evaluate(config, str(tmp_path), "train_and_evaluate")


def test_a_file_in_place_of_the_work_directory(config, tmp_path):
    (tmp_path / "file").write_text("")
    for place in ("file", "file/below"):
        with pytest.raises(LfmError, match="choose another folder"):
            loop.train_and_evaluate(config, str(tmp_path / place))


@pytest.mark.parametrize("code", ["ENOSPC", "EROFS", "ENOENT"])
def test_a_work_directory_that_cannot_be_written(config, tmp_path, monkeypatch, code):
    def refuse(*_):
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)), "here")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(LfmError, match="here") as error:
        loop.train_and_evaluate(config, str(tmp_path))
    assert "\n" not in str(error.value)


def test_lines_past_the_resumed_step_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = MetricsWriter(path, 0)
    for step in (5, 10, 15):
        writer.write(step, {"loss": float(step)})
    with path.open("a") as file:
        file.write('{"step": 20, "lo')
    MetricsWriter(path, 10).write(15, {"loss": 0.0})
    assert read_metrics(path) == [
        {"step": 5, "loss": 5.0},
        {"step": 10, "loss": 10.0},
        {"step": 15, "loss": 0.0},
    ]
