"""How soon 2D-LFM is as good as the authors' C3DPO will ever be, on one processor.

    python benchmarks/c3dpo_time.py DIR CHECKOUT --python=TORCH_PYTHON

Arguments are those of `c3dpo_reference.py`; --seeds counts rounds. In each their code
trains a network for each category, and 2D-LFM (configs/lfm2d.py:archive) is then built
for all of them at once, from no file and with nothing compiled in this process before,
its factorization included. That it lifts better than they do in the end, by `ne` of
their own lifting or in the fitted pose, whichever is lower, is asked of its start: no
update has to be made where it does.
"""

import os
import pathlib
import statistics
import sys
import tempfile
import time

import c3dpo_reference as reference
import jax
import numpy as np

from lfm_jax import config, metrics
from lfm_jax.lifting import make_predict
from lfm_jax.train import loop


def build(args, names: list[str], seed: int, workdir: str):
    """2D-LFM of these categories before its first update."""
    values = config.to_config_dict(config.Config())
    for key, value in (("dir", args.dir), ("only", ",".join(names))):
        config.assign(values, f"data.{key}", value)
    values.seed = seed
    return loop.build(config.from_config_dict(values), pathlib.Path(workdir))


def errors(built) -> list[float]:
    """`ne` of what the start lifts, of each category's test frames."""
    training, evaluation = built.dataset.training, built.dataset.evaluation
    ones = np.ones(len(training.skeletons), np.float32)
    params = built.model.init(jax.random.key(0))
    predict = make_predict(built.model, params, ones, training.skeletons)
    found = []
    for parts in zip(evaluation.validation, evaluation.test, strict=True):
        scores = []
        for part in parts:
            lifted = predict(part.observation).start.lifted
            both = (lifted, np.asarray(metrics.mirror_depth(lifted)))
            ne = [metrics.ne(x, part.points3d, part.evaluated) for x in both]
            scores.append([float(np.mean(x)) for x in ne])
        found.append(scores[1][int(np.argmin(scores[0]))])
    return found


def main() -> None:
    args = reference.arguments()
    names = sorted(args.categories.split(","))
    ratios = []
    for seed in range(args.seeds):
        theirs, seconds = [], 0.0
        for name in names:
            dataset = reference.open_category(args.dir, name)
            found = reference.theirs(dataset, reference.settings_of(args, seed), args)
            scores = reference.judge(found, dataset)
            theirs.append(min(scores["fitted"], scores["predicted"]))
            seconds += float(found["seconds"])
        jax.clear_caches()
        with tempfile.TemporaryDirectory() as workdir:
            begin = time.perf_counter()
            built = build(args, names, seed, workdir)
            ours_seconds = time.perf_counter() - begin
            ours = errors(built)
        ratios.append(ours_seconds / seconds)
        print(f"round {seed}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}:")
        print(f"  theirs {seconds:.0f} s, ne {[round(x, 1) for x in theirs]}")
        print(f"  ours   {ours_seconds:.0f} s, ne {[round(x, 1) for x in ours]}")
        sys.stdout.flush()
    print(f"ours over theirs: {statistics.median(ratios):.2f}, all {ratios}")


if __name__ == "__main__":
    main()
