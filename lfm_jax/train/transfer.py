"""Training that begins at the weights of another run, or of a release."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import PyTree

from lfm_jax import workdir
from lfm_jax.checkpoint import read_weights
from lfm_jax.errors import LfmError
from lfm_jax.skeleton_io import read_skeletons
from lfm_jax.types import Skeleton, TrainState

Init = Callable[[], TrainState]
LATER = "time_"  # parts of 3D-LFM-Time; the others are those of 3D-LFM


def begin_at(name: str, skeletons: Sequence[Skeleton]) -> Callable[[Init], Init]:
    """A first state with the averaged weights of another run.

    A category that the other run does not know gets the mean of what belongs to single
    categories. A network that looks back in time may begin at one that does not. The
    optimiser begins anew, and signs of depth are not taken over.

    Args:
        name: see `TrainConfig.weights`; empty for a first state as it is.
        skeletons: the categories of the new run.

    Returns:
        From what makes a first state, on its devices, what makes one with the weights;
        that raises an `LfmError` where they are of a network of another size.

    Raises:
        LfmError: there are no such weights.
    """
    if not name:
        return lambda init: init
    folder = workdir.find(name)
    known, _ = read_skeletons(folder / workdir.SKELETONS)
    params = dict(read_weights(folder / "checkpoints").params)
    if "category" in params:
        params["category"] = jax.tree.map(
            lambda rows: _by_name(rows, known, skeletons), params["category"]
        )

    def begin(init: Init) -> TrainState:
        state = init()
        new = {key for key in state.params if key.startswith(LATER)} - set(params)
        only = lambda own: {key: own[key] for key in own if key not in new}
        _check_sizes(name, params, only(state.params))
        put = lambda value, leaf: jax.device_put(np.array(value), leaf.sharding)
        begun = lambda own: own | jax.tree.map(put, params, only(own))
        # each by itself: a step takes the memory of both
        return dataclasses.replace(
            state, params=begun(state.params), averaged=begun(state.averaged)
        )

    return lambda init: functools.partial(begin, init)


def _by_name(rows, known: Sequence[Skeleton], skeletons: Sequence[Skeleton]):
    rows, names = np.asarray(rows), [skeleton.name for skeleton in known]
    find = lambda name: rows[names.index(name)] if name in names else rows.mean(axis=0)
    return np.stack([find(skeleton.name) for skeleton in skeletons])


def _check_sizes(name: str, theirs: PyTree, ours: PyTree) -> None:
    sizes = [
        {
            jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }
        for tree in (theirs, ours)
    ]
    wrong = sorted(key for key, _ in sizes[0].items() ^ sizes[1].items())
    if wrong:
        raise LfmError(
            f"The weights of {name} are of another network ({wrong[0]} has another "
            "size, or is in one alone): give the model settings of its config.json, or "
            "leave out train.weights."
        )
