"""The loop: everything that training does besides mathematics. There is only one.

    build -> restore -> run -> finish

Each phase is a function that returns a record for the next. State is made, or restored,
in this order: the newest readable checkpoint of the work directory, else from scratch.
The same command therefore resumes, and with exactly the same continuation: a
checkpoint holds the state and the position in the data, and all randomness is a
function of the seed and the step.
"""

import contextlib
import dataclasses
import functools
import logging
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import grain
import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from lfm_jax import models, processes, programs, sharding, tasks
from lfm_jax.checkpoint import Checkpoints
from lfm_jax.config import Config, suggest
from lfm_jax.data import views
from lfm_jax.data.dataset import Dataset, open_dataset
from lfm_jax.data.mixture import frame_of, training_batches
from lfm_jax.errors import LfmError
from lfm_jax.lifting import make_predict
from lfm_jax.metrics_io import MetricsWriter, Progress
from lfm_jax.skeleton_io import write_skeletons
from lfm_jax.train.confidence import Trust, calibration, measure_trust
from lfm_jax.train.evaluate import (
    choose_depth_sign,
    evaluate,
    frame_errors,
    point_errors,
)
from lfm_jax.train.optim import learning_rate, make_optimizer
from lfm_jax.train.start import factorized
from lfm_jax.train.step import init_state, make_train_step
from lfm_jax.train.stopping import plateau, stop_request
from lfm_jax.train.table import results_table
from lfm_jax.train.transfer import begin_at
from lfm_jax.train.validation import validation_loss
from lfm_jax.train.watch import Watch
from lfm_jax.types import Labelled, Observation, Prediction, TrainState
from lfm_jax.workdir import (
    CONFIDENCE,
    SKELETONS,
    SPLIT,
    claim,
    claim_file,
    versions,
    write_json,
    writing,
)

MODES = ("train_and_eval", "train", "eval")
HELD_OUT = "validation_loss_2d"  # what metrics.jsonl calls it

_log = logging.getLogger(__name__)


def train_and_evaluate(
    config: Config, workdir: str, mode: str = MODES[0]
) -> "Results | None":
    """Trains and evaluates one run; goes on where its work directory stands.

    Args:
        config: what to run.
        workdir: where all files of the run go (lfm_jax/workdir.py).
        mode: "train_and_eval", "train", or "eval" for the newest checkpoint as it is.

    Returns:
        What eval.json holds and what it was made from; None after "train", and in all
        processes but the first.

    Raises:
        LfmError: bad data, a work directory of another config or that cannot be
            written, nothing to evaluate, or a loss that stays without a finite value.
        SystemExit: asked to stop by Ctrl-C or SIGTERM, after saving a checkpoint.
    """
    if mode not in MODES:
        raise LfmError(f"There is no mode {mode!r}{suggest(mode, MODES)}.")
    path = pathlib.Path(workdir)
    with writing(path):
        with processes.first_goes_first("build"), claim(path, config):
            if mode == "eval" and not any((path / "checkpoints").glob("[0-9]*")):
                raise LfmError(f"There is no checkpoint in {path} to evaluate.")
            built = build(config, path)
        if processes.first():
            write_json(path / "versions.json", versions())
        with Checkpoints(path / "checkpoints") as checkpoints:
            standing = restore(built, checkpoints)
            if mode != "eval":
                standing = run(built, standing, checkpoints)
            programs.forget_some()  # evaluation has as many of its own
            state = settle(built, standing, checkpoints)
        return None if mode == "train" else finish(built, state)


# ----------------------------------------------------------------------------
# Build: everything that does not change while training.
# ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Built:
    """A run that has not started.

    Attributes:
        config, workdir: as given.
        mesh: the devices.
        abstract: shape, dtype and sharding of every leaf of the state.
        dataset: training and evaluation data.
        rigid: per category the shape [n 3] factorized from 2D: a yardstick.
        model: the network.
        task: the objective.
        init: () -> the first state, on the mesh.
        step: (state, batch) -> (state, scalars); takes the state's memory.
        validate: params -> the 2D loss of held out frames.
        batches: the training batches from the beginning.
    """

    config: Config
    workdir: pathlib.Path
    mesh: Mesh
    abstract: TrainState
    dataset: Dataset
    rigid: tuple[np.ndarray, ...]
    model: models.Model
    task: tasks.Task
    init: Callable[[], TrainState]
    step: Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]
    validate: Callable[[PyTree], jax.Array]
    batches: grain.IterDataset


def build(config: Config, workdir: pathlib.Path) -> Built:
    """Opens the data, factorizes it, and compiles nothing yet."""
    views.check_clip(config.data.camera, config.train.clip)
    if config.model.alone and config.train.clip * config.data.views > 1:
        raise LfmError(
            "model.alone learns from single frames: leave out train.clip, data.views."
        )
    dataset = open_dataset(config.data, str(workdir))
    training = dataset.training
    claim_file(workdir / SPLIT, dataset.split)
    known = [isinstance(part, Labelled) for part in dataset.evaluation.validation]
    write_skeletons(workdir / SKELETONS, training.skeletons, known)
    # mistakes are found before minutes go into factorizing
    sharding.check_layout(config.mesh)
    models.build(config.model, training.skeletons, views=training.views)
    task = tasks.build(config.objective, config.model.name)
    begin = begin_at(config.train.weights, training.skeletons)
    batches = training_batches(
        training,
        per_category=config.train.per_category,
        seed=config.seed,
        clip=config.train.clip,
        microbatches=config.train.microbatches,
        truth=dataset.evaluation.train if config.objective.supervised else None,
        share=processes.share(),
    )
    held_out = [part.observation for part in dataset.evaluation.validation]
    factors = factorized(training, held_out, config.model, config.seed, workdir)
    programs.forget_some()
    counts = [len(skeleton.keypoints) for skeleton in training.skeletons]

    mesh = sharding.make_mesh()
    model = models.build(
        config.model, training.skeletons, factors.start, training.views
    )
    init, step, abstract = place(config, model, task, len(counts), mesh)
    return Built(
        config=config,
        workdir=workdir,
        mesh=mesh,
        dataset=dataset,
        rigid=tuple(r[:n] for r, n in zip(factors.rigid, counts, strict=True)),
        model=model,
        task=task,
        abstract=abstract,
        init=begin(init),
        step=step,
        validate=validation_loss(dataset, model, mesh, config.train.clip),
        batches=batches,
    )


def place(
    config: Config, model: models.Model, task: tasks.Task, categories: int, mesh: Mesh
) -> tuple[Callable[[], TrainState], Callable, TrainState]:
    """`init` and `step` of a run on these devices, and the abstract state."""
    optimizer = make_optimizer(config.optim, config.train.steps)
    step = make_train_step(
        model,
        task,
        optimizer,
        average=config.optim.average,
        microbatches=config.train.microbatches,
        spread=functools.partial(sharding.spread, mesh=mesh),
    )

    def init():
        return init_state(model, optimizer, jax.random.key(config.seed), categories)

    shapes = jax.eval_shape(init)
    layout = sharding.layout(shapes, mesh, config.mesh)
    after = layout, sharding.replicated(mesh)
    return (
        jax.jit(init, out_shardings=layout),
        jax.jit(step, donate_argnums=0, out_shardings=after),
        sharding.abstract(shapes, layout),
    )


# ----------------------------------------------------------------------------
# Restore: where the run stands.
# ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Standing:
    """A state, the step it is of, and the batches that come next."""

    step: int
    state: TrainState
    batches: Iterator


def restore(built: Built, checkpoints: Checkpoints) -> Standing:
    """The newest readable checkpoint of the work directory, else a first state."""
    batches = iter(built.batches)
    state = checkpoints.restore(built.abstract, batches)
    if state is None:
        state = built.init()
    step = int(state.step)
    _log.info(
        "%s with %d parameters and %d categories on %d device(s); %d left out",
        f"going on from step {step}" if step else "starting",
        sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        len(built.dataset.training.skeletons),
        built.mesh.size,
        len(built.dataset.skipped),
    )
    return Standing(step, state, batches)


# ----------------------------------------------------------------------------
# Run: the steps.
# ----------------------------------------------------------------------------


def run(built: Built, start: Standing, checkpoints: Checkpoints) -> Standing:
    """All steps that are left, or as many as validation wants (`train.patience`)."""
    config, state, batches = built.config.train, start.state, start.batches
    silent = not processes.first()
    metrics = MetricsWriter(built.workdir / "metrics.jsonl", start.step, silent)
    validated = [line[HELD_OUT] for line in metrics.kept if HELD_OUT in line]
    if plateau(validated, config.patience):
        return start
    progress = Progress(start.step, config.steps, silent)
    watch = _watch(built)
    with stop_request() as asked, contextlib.closing(progress):
        for step in range(start.step, config.steps):
            # The order matters: evaluate, save, and only then take a batch. A saved
            # iterator is then never ahead of the saved state.
            fresh = step > start.step
            if fresh and step % config.validate_every == 0:
                validated.append(float(built.validate(state.averaged)))
                metrics.write(step, {HELD_OUT: validated[-1]})
                progress.pause(step)
                if plateau(validated, config.patience):
                    _log.info("validation gains nothing more: ended at step %d", step)
                    return Standing(step, state, batches)
            stop = asked(step)
            if stop or (fresh and step % config.checkpoint_every == 0):
                checkpoints.save(step, state, batches)
                progress.pause(step)
            if stop:
                _log.info("stopped at step %d; the same command goes on", step)
                raise SystemExit(128 + stop)
            batch = next(batches)
            state, scalars = built.step(state, sharding.put_batch(batch, built.mesh))
            seen = int(np.sum(batch[0].observation.observed))
            progress.advance(seen * jax.process_count())
            watch.add(step + 1, scalars)
            if (step + 1) % config.log_every == 0 or step + 1 == config.steps:
                line = watch.check() | progress.rates(step + 1)
                metrics.write(step + 1, line)
                progress.show(step + 1, line)
    return Standing(config.steps, state, batches)


def _watch(built: Built) -> Watch:
    training, parts = built.dataset.training, built.dataset.split["categories"]
    train = built.config.train
    place = frame_of(training, train.per_category, built.config.seed, train.clip)
    names = [skeleton.name for skeleton in training.skeletons]

    def frame(step: int, example: int) -> tuple[str, int]:
        """Category and row in the archive."""
        category, chosen = place(step, example)
        return names[category], parts[names[category]]["train"][chosen]

    rate = learning_rate(built.config.optim, built.config.train.steps)
    return Watch(names, rate, built.config.optim.clip, frame)


# ----------------------------------------------------------------------------
# Settle and finish: depth signs, then numbers.
# ----------------------------------------------------------------------------


def settle(built: Built, last: Standing, checkpoints: Checkpoints) -> TrainState:
    """Chooses the depth signs on validation, and saves them with the final state.

    A state that is on disk already stays there as it is: one that was stopped half-way
    and is only evaluated has signs in eval.json, and none in its checkpoint.
    """
    averaged = sharding.gather(last.state.averaged, built.mesh)
    signs = np.ones(last.state.depth_sign.shape, np.float32)
    if processes.first():
        signs = _signs(built, averaged)
    signs = sharding.put(processes.from_first(signs), built.mesh)
    state = dataclasses.replace(last.state, depth_sign=signs)
    checkpoints.save(last.step, state, last.batches)
    return state


@dataclasses.dataclass(frozen=True)
class Results:
    """What a run came to.

    Attributes:
        numbers: what eval.json holds.
        predict: the trained model.
        errors: per category, the error of each test frame.
        dataset: what it was trained and evaluated on.
    """

    numbers: dict[str, Any]
    predict: Callable[[Observation], Prediction]
    errors: tuple[np.ndarray, ...]
    dataset: Dataset


def finish(built: Built, state: TrainState) -> Results | None:
    """Evaluates on the test split, writes eval.json and prints the table."""
    averaged = sharding.gather(state.averaged, built.mesh)
    if not processes.first():
        return None
    training, evaluation = built.dataset.training, built.dataset.evaluation
    predict = _remembering(_predict(built, averaged, np.asarray(state.depth_sign)))
    scores = evaluate(
        predict,
        training,
        evaluation,
        built.rigid,
        perspective=built.config.data.camera == "perspective",
        films=built.config.data.camera in views.BY_CLIP,
    )
    _refuse_nonfinite(scores["categories"])
    for name, entry in scores["categories"].items():
        entry["dropped_frames"] = built.dataset.split["categories"][name]["dropped"]
    numbers = {
        "step": int(state.step),
        "split": "test",
        "seed": built.config.seed,
        "supervised": built.config.objective.supervised,
        "trained_categories": len(training.skeletons),
        "parameters": models.size(
            state.params, training.skeletons, alone=built.config.model.alone
        ),
        **scores,
        "calibration": _calibration(built, predict),
        "skipped": built.dataset.skipped,
    }
    write_json(built.workdir / "eval.json", numbers)
    print(results_table(numbers))
    return Results(numbers, predict, frame_errors(predict, evaluation), built.dataset)


def _calibration(built: Built, predict: Callable) -> list[dict[str, float]]:
    """Empty of a model that fuses views: confidence is that of single ones."""
    if built.model.views > 1:
        return []
    evaluation = built.dataset.evaluation
    return calibration(
        _trust(built, predict),
        predict,
        [record.observation for record in evaluation.test],
        point_errors(predict, evaluation),
    )


def _trust(built: Built, predict: Callable) -> list[Trust]:
    """Per category; kept in the work directory for those who lift."""
    held_out = [part.observation for part in built.dataset.evaluation.validation]
    trust = measure_trust(predict, held_out)
    names = [skeleton.name for skeleton in built.dataset.training.skeletons]
    tables = [one.to_json() for one in trust]
    write_json(built.workdir / CONFIDENCE, dict(zip(names, tables, strict=True)))
    return trust


def _refuse_nonfinite(entries: dict[str, dict]) -> None:
    broken = [n for n, e in entries.items() if not np.isfinite(e["reprojection"])]
    if broken:
        raise LfmError(
            f"What was lifted is not finite for {', '.join(broken)}; look at the data "
            "of these categories, or train with a lower optim.learning_rate."
        )


def _remembering(predict: Callable) -> Callable:
    """Lifts each observation once: the table, the errors and the report all ask."""
    known: dict[int, tuple[Observation, Prediction]] = {}

    def remembered(observation: Observation) -> Prediction:
        key = id(observation)
        if key not in known:
            # the observation is kept too: while it lives, nothing else has its id
            known[key] = observation, predict(observation)
        return known[key][1]

    return remembered


def _signs(built: Built, params: PyTree) -> np.ndarray:
    evaluation = built.dataset.evaluation
    unsigned = np.ones(len(evaluation.validation), np.float32)
    return choose_depth_sign(
        _predict(built, params, unsigned),
        evaluation,
        perspective=built.config.data.camera == "perspective",
    )


def _predict(built: Built, params: PyTree, signs: np.ndarray) -> Callable:
    skeletons = built.dataset.training.skeletons
    return make_predict(built.model, params, signs, skeletons, few=0)
