"""How long one training step takes, where the time goes, and how far from the limit.

    python benchmarks/train_step.py --config=configs/lfm2d.py:base --json

Real batches of the config's data and categories. The work directory
(--workdir, by default runs/train_step) keeps the factorization, so that a second
measurement begins at once. Everything is timed in turns within one run, and medians
are reported, so that a busy machine slows all of it alike.

Counted FLOPs, two for a multiply-add, of one forward pass over T = rows x length token
slots (empty ones are computed too), width w, L blocks, f features read:

    T (2 f w + L (2 (3 w^2 + w^2 + 8 w^2) + 4 length w) + 6 w)

A step makes two forward passes (L_2d and L_view; one if supervised) and their gradient,
which costs twice as much: six times that (three times). Encodings, normalisations,
geometry and the optimiser are not counted. `shape_flops_per_s` is the rate of a block's
products alone, forward and gradient shapes; `utilisation` is the step's rate over it.
Both that and the large square product compute in `model.dtype`.
"""

import json
import pathlib
import resource
import statistics
import sys
import time

import jax
import jax.numpy as jnp
from absl import app, flags
from ml_collections import config_flags

from lfm_jax import sharding, tasks
from lfm_jax.config import from_config_dict
from lfm_jax.geometry.pose import apply_pose, fit_pose
from lfm_jax.memory import keep_freed
from lfm_jax.train import loop

_CONFIG = config_flags.DEFINE_config_file("config", None, "What to train.")
_WORKDIR = flags.DEFINE_string("workdir", "runs/train_step", "Keeps the factorization.")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Medians are over so many.")
_JSON = flags.DEFINE_bool("json", False, "One line of JSON instead of a list.")
# Columns of the square product: large enough to be bound by arithmetic.
SQUARE = {"cpu": 2048, "gpu": 8192, "tpu": 8192}


def measure(functions: dict, rounds: int) -> dict[str, float]:
    """Median seconds of each, all called in turn in every round, once before."""
    times = {name: [] for name in functions}
    for turn in range(rounds + 1):
        for name, function in functions.items():
            begin = time.perf_counter()
            jax.block_until_ready(function())
            if turn:
                times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in times.items()}


def pass_flops(tokens: int, length: int, features: int, width: int, layers: int) -> int:
    """Of one forward pass; the header has the formula."""
    block = 2 * 12 * width * width + 4 * length * width
    return tokens * (2 * features * width + layers * block + 6 * width)


def products(rows: int, length: int, width: int, heads: int, dtype: str):
    """A block's matrix products and their gradients, alone; and their FLOPs."""
    tokens, size = rows * length, width // heads
    key = jax.random.key(0)
    draw = lambda *shape: jax.random.normal(key, shape, dtype)
    left = draw(tokens, width)
    weights = [draw(width, columns) for columns in (3 * width, width)]
    wide, narrow = draw(width, 4 * width), draw(4 * width, width)
    query = draw(rows * heads, length, size)

    @jax.jit
    def all_products(left, query):
        def forward(left, weights, wide, narrow, query):
            logits = jnp.einsum("rld,rmd->rlm", query, query)
            attended = jnp.einsum("rlm,rmd->rld", logits, query)
            hidden = (left @ wide) @ narrow
            outputs = [attended, hidden, *(left @ w for w in weights)]
            return sum(jnp.sum(jnp.square(output)) for output in outputs)

        gradient = jax.grad(forward, argnums=(0, 1, 2, 3, 4))
        return gradient(left, weights, wide, narrow, query)

    flops = 3 * tokens * (2 * 12 * width * width + 4 * length * width)
    return lambda: all_products(left, query), flops


def pose_work(begin, observation):
    """The geometry of one forward pass: the start and the final pose."""

    @jax.jit
    def work(normal):
        shape = begin(normal)
        return apply_pose(fit_pose(shape, normal.points2d, normal.observed), shape)

    normal = tasks.normalise(observation)[0]
    return lambda: work(normal)


def profile(config, workdir: pathlib.Path, rounds: int) -> dict:
    """Times the step of a config and its parts; the keys of the JSON line."""
    built = loop.build(config, workdir)
    batches = iter(built.batches)
    records, packing = batch = sharding.put_batch(next(batches), built.mesh)
    supervised = config.objective.supervised
    seen = records.observation if supervised else records

    def objective(params, records, packing):
        apply, key = built.model.apply, jax.random.key(0)
        terms = built.task.loss(apply, params, records, packing, key)
        return jnp.mean(terms["loss"])

    state = built.init()
    params = jax.tree.map(jnp.copy, state.params)
    begin = time.perf_counter()
    step = built.step.lower(state, batch).compile()
    compile_s = time.perf_counter() - begin
    standing = [state]

    def advance(batch):
        standing[0], scalars = step(standing[0], batch)
        return scalars

    rows, length = packing.token.shape
    model, heads = config.model, config.model.heads
    columns = SQUARE[jax.default_backend()]
    square = jax.random.normal(jax.random.key(0), (columns, columns), model.dtype)
    alone, shape_flops = products(rows, length, model.width, heads, model.dtype)
    forward, gradient = jax.jit(objective), jax.jit(jax.grad(objective))
    multiply = jax.jit(jnp.matmul)
    median = measure(
        {
            "real": lambda: advance(sharding.put_batch(next(batches), built.mesh)),
            "step": lambda: advance(batch),
            "forward": lambda: forward(params, records, packing),
            "gradient": lambda: gradient(params, records, packing),
            "pose": pose_work(built.model.begin, seen),
            "products": alone,
            "square": lambda: multiply(square, square),
        },
        rounds,
    )
    slots, useful = rows * length, int(jnp.sum(packing.segment > 0))
    features = params["embed"]["kernel"].shape[0]
    flops = pass_flops(slots, length, features, model.width, model.layers)
    passes = 1 if supervised else 2
    return {
        "compile_s": round(compile_s, 2),
        "step_ms": round(1e3 * median["step"], 2),
        "useful_tokens_per_s": round(useful / median["real"]),
        "useful_token_share": round(useful / slots, 4),
        **rates(3 * passes * flops, shape_flops, 2 * columns**3, median),
        "peak_memory_mb": _peak_memory_mb(),
        "share": shares(passes, median),
    }


def rates(flops: int, shape_flops: int, square_flops: int, median: dict) -> dict:
    """How much is computed, and how near that is to what the machine can."""
    rate = flops / median["step"]
    shape_rate = shape_flops / median["products"]
    square_rate = square_flops / median["square"]
    return {
        "model_flops_per_step": flops,
        "matmul_flops_per_s": round(square_rate),
        "shape_flops_per_s": round(shape_rate),
        "utilisation": round(rate / shape_rate, 4),
        "utilisation_square": round(rate / square_rate, 4),
    }


def shares(passes: int, median: dict[str, float]) -> dict[str, float]:
    """Of the time of a step with real input."""
    seconds = {
        "forward": median["forward"] - passes * median["pose"],
        "backward": median["gradient"] - median["forward"],
        "pose": passes * median["pose"],
        "optimiser": median["step"] - median["gradient"],
        "input": median["real"] - median["step"],
    }
    return {
        name: round(max(value, 0.0) / median["real"], 4)
        for name, value in seconds.items()
    }


def main(_) -> None:
    keep_freed()  # as training does
    config = from_config_dict(_CONFIG.value)
    workdir = pathlib.Path(_WORKDIR.value)
    workdir.mkdir(parents=True, exist_ok=True)
    result = profile(config, workdir, _ROUNDS.value)
    if _JSON.value:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:22}{value}")


def _peak_memory_mb() -> int:
    """Of the accelerator where it tells; of this process on a CPU."""
    statistic = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistic:
        return statistic["peak_bytes_in_use"] // 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
