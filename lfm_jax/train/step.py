"""The one training step: pure, compiled by the loop, the same for every task.

Where every category has a network of its own (`models.Model.each`) the step is mapped
over the categories. Each then has what it would have in a run of its own: the same
random numbers, its own clipping and moments, its own skipped updates.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from lfm_jax.models import Model
from lfm_jax.numerics import centre, keep
from lfm_jax.tasks import Task
from lfm_jax.types import ArrayLike, Labelled, Observation, Packing, TrainState

Records = Observation | Labelled
Batch = tuple[Records, Packing | None]

LARGEST = 1e15  # of a coordinate: single precision holds squares of it, and their sums
THINNEST = 1e-6  # determinant of the 2D moments over their squared trace, at most 1/4
FLAWS = (
    "",
    f"with coordinates that are not finite or beyond {LARGEST:.0e}",
    "with all points in one place or on a line",
)
# Of a state, what each category has one of where every one has its own network.
APART = TrainState(step=None, params=0, averaged=0, opt_state=0, key=None, depth_sign=0)


def init_state(
    model: Model, tx: optax.GradientTransformation, key: Key[Array, ""], categories: int
) -> TrainState:
    """The state before the first step.

    The averaged weights are a copy: a donated state must not hold a buffer twice.
    """
    if model.each:
        begin = lambda own: init_state(own, tx, key, 1)
        return _flat_signs(model.each(begin, out_axes=APART)())
    params = model.init(jax.random.fold_in(key, 0))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        averaged=jax.tree.map(jnp.copy, params),
        opt_state=tx.init(params),
        key=key,
        depth_sign=jnp.zeros(categories),
    )


def make_train_step(
    model: Model,
    task: Task,
    tx: optax.GradientTransformation,
    *,
    average: float = 0.998,
    microbatches: int = 1,
    spread: Callable[[PyTree], PyTree] = lambda batch: batch,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """Builds `step(state, batch) -> (state, scalars)`.

    Examples with a flaw (`flaws`, in `scalars["flaw"]`) are left out of the loss. An
    update without a finite loss and gradient, or without an example left, is skipped:
    the step still counts (data and random streams stay where they are), the weights
    stay what they were, and `scalars["finite"]` is False.

    Args:
        model: the network.
        task: the objective.
        tx: the optimiser.
        average: decay of the moving average of the weights; it starts low: the first
            weights are soon forgotten.
        microbatches: parts of the batch, one after the other, whose gradients are
            added up; the packing is that of a part.
        spread: places a part of the batch on devices.
    """
    if model.each:
        inner = {"average": average, "microbatches": microbatches}
        make = lambda own: make_train_step(own, task, tx, **inner)
        return _side_by_side(model.each, make, spread)

    def step(state: TrainState, batch: Batch):
        records, packing = batch
        key = jax.random.fold_in(jax.random.fold_in(state.key, 1), state.step)
        flaw = flaws(records, fused=model.views > 1)
        kept = flaw == 0
        count = jnp.maximum(jnp.sum(kept, dtype=jnp.float32), 1.0)
        mean = lambda values, kept=kept: jnp.sum(jnp.where(kept, values, 0.0)) / count

        def objective(params, records, kept, key):
            records, kept, rows = spread((records, kept, packing))
            terms = task.loss(model.apply, params, hide(records, kept), rows, key)
            return mean(terms["loss"], kept), terms

        parts = records, kept
        (loss, terms), gradients = _accumulate(
            objective, microbatches, state.params, parts, key
        )
        norm = optax.tree.norm(gradients)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm) & jnp.any(kept)
        new = _update(state, tx, gradients, finite, average)
        category, categories = records.observation.category, len(state.depth_sign)
        return new, {name: mean(values) for name, values in terms.items()} | {
            "grad_norm": norm,
            "finite": finite,
            "flaw": flaw,
            "loss_per_category": _by(category, categories, terms["loss"], kept),
        }

    return step


def _side_by_side(each: Callable, make: Callable, spread: Callable) -> Callable:
    """The step of all categories from `make`, which makes that of a single one.

    A batch has categories 0, 1, ..., c-1, and again (data/mixture.py).
    """

    def step(state: TrainState, batch: Batch):
        categories = len(state.depth_sign)

        def apart(leaf):
            split = leaf.reshape(-1, categories, *leaf.shape[1:])
            return jnp.swapaxes(split, 0, 1)

        records = spread(jax.tree.map(apart, _only(batch[0])))
        state = dataclasses.replace(state, depth_sign=state.depth_sign[:, None])
        one = lambda own, state, records: make(own)(state, (records, None))
        state, found = each(one, (APART, 0), (APART, 0))(state, records)
        special = {
            "grad_norm": jnp.linalg.norm(found["grad_norm"]),
            "finite": jnp.all(found["finite"]),
            "flaw": jnp.ravel(found["flaw"].T),
            "loss_per_category": found["loss_per_category"][:, 0],
        }
        means = {k: jnp.mean(v) for k, v in found.items() if k not in special}
        return _flat_signs(state), means | special

    return step


def _flat_signs(state: TrainState) -> TrainState:
    """A state whose signs came one by one, [c 1]."""
    return dataclasses.replace(state, depth_sign=state.depth_sign[:, 0])


def _only(records: Records) -> Records:
    """Records whose category is the first of its network."""
    seen = records.observation
    seen = dataclasses.replace(seen, category=jnp.zeros_like(seen.category))
    if isinstance(records, Labelled):
        return dataclasses.replace(records, observation=seen)
    return seen


def _accumulate(objective, microbatches, params, parts, key):
    """((loss, terms), gradients) of a batch, all at once or part by part."""
    slope = jax.value_and_grad(objective, has_aux=True)
    if microbatches == 1:
        return slope(params, *parts, key)
    parts = jax.tree.map(lambda x: x.reshape(microbatches, -1, *x.shape[1:]), parts)

    def add(total, part):
        (loss, terms), gradients = slope(params, *part)
        return jax.tree.map(jnp.add, total, (loss, gradients)), terms

    nothing = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)
    keys = jax.random.split(key, microbatches)
    (loss, gradients), terms = jax.lax.scan(add, nothing, (*parts, keys))
    return (loss, jax.tree.map(jnp.ravel, terms)), gradients


def _by(category, categories, values, kept):
    """The mean of values per category, of those that are kept; zero of none."""
    sums, counts = (
        jax.ops.segment_sum(jnp.where(kept, x, 0.0), category, categories)
        for x in (values, 1.0)
    )
    return sums / jnp.maximum(counts, 1.0)


def _update(state, tx, gradients, finite, average):
    """The next state; all but the step as it was, unless `finite`."""
    updates, opt_state = tx.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    count = state.step.astype(jnp.float32)
    decay = jnp.minimum(average, (1.0 + count) / (10.0 + count))
    averaged = jax.tree.map(
        lambda old, new: decay * old + (1.0 - decay) * new, state.averaged, params
    )
    choose = lambda new, old: jnp.where(finite, new, old)
    return dataclasses.replace(
        state,
        step=state.step + 1,
        params=jax.tree.map(choose, params, state.params),
        averaged=jax.tree.map(choose, averaged, state.averaged),
        opt_state=jax.tree.map(choose, opt_state, state.opt_state),
    )


def flaws(records: Records, *, fused: bool = False) -> Int[Array, "b"]:
    """What is wrong with each example, an index into `FLAWS`; 0 for nothing.

    A pose cannot be told from points on a line: every turn about it looks the same.
    Where views are fused, one in which nothing is seen is missing, and no flaw.
    """
    seen = records.observation
    sane = _inside(seen.points2d, seen.observed | seen.annotated)
    if isinstance(records, Labelled):
        sane &= _inside(records.points3d, records.evaluated)
    points = keep(jnp.asarray(seen.points2d), seen.observed & sane[:, None])
    points = centre(points, seen.observed)
    size = jnp.max(jnp.abs(points), axis=(1, 2), keepdims=True)
    points = points / jnp.where(size > 0.0, size, 1.0)
    xx, yy, xy = (
        jnp.sum(points[..., i] * points[..., j], axis=-1)
        for i, j in ((0, 0), (1, 1), (0, 1))
    )
    thin = xx * yy - xy * xy <= THINNEST * jnp.square(xx + yy)
    if fused:
        thin &= jnp.any(seen.observed, axis=1)
    return jnp.where(sane, jnp.where(thin, 2, 0), 1)


def _inside(points: Float[ArrayLike, "b n d"], mask: Bool[ArrayLike, "b n"]):
    """Whether the masked points of an example are numbers that can be squared."""
    return jnp.all(jnp.abs(keep(jnp.asarray(points), mask)) <= LARGEST, axis=(1, 2))


def hide(records: Records, kept: Bool[ArrayLike, "b"]) -> Records:
    """Records in which nothing is seen, or known, of the examples that are not kept."""
    if isinstance(records, Labelled):
        evaluated = records.evaluated & kept[:, None]
        return Labelled(
            hide(records.observation, kept),
            keep(jnp.asarray(records.points3d), evaluated),
            evaluated,
        )
    return dataclasses.replace(
        records,
        points2d=jnp.where(kept[:, None, None], records.points2d, 0.0),
        observed=records.observed & kept[:, None],
        annotated=records.annotated & kept[:, None],
    )
