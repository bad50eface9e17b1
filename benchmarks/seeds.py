"""One table from several runs that differ in their seed.

    python benchmarks/seeds.py runs/archive-0 runs/archive-1 runs/archive-2

Reads eval.json of each work directory and prints the mean over the runs with the
smallest and largest value, the share of large categories in which ours beats rigid by
13 %, and every large category in which ours is worse than flat.
"""

import json
import pathlib
import sys

import numpy as np

COLUMNS = (
    *("ne_flat", "ne_rigid_lifted", "ne_mean_shape_lifted", "ne_start_lifted"),
    *("ne_lifted", "ne_rigid", "ne_mean_shape", "ne_start", "ne_canonical"),
    *("shape_variance_ratio_median", "reprojection"),
)
LARGE, MARGIN = 200, 0.87  # training frames; share of the rigid error


def main(folders: list[str]) -> None:
    runs = [json.loads((pathlib.Path(f) / "eval.json").read_text()) for f in folders]
    print(f"seeds {[run['seed'] for run in runs]}, {runs[0]['split']} split")
    for name in COLUMNS:
        values = np.array([run["mean"][name] for run in runs])
        spread = f"{values.min():.2f} to {values.max():.2f}"
        print(f"{name:30}{values.mean():8.2f}   {spread}")
    for run in runs:
        large = {
            name: entry
            for name, entry in run["categories"].items()
            if entry["train_frames"] >= LARGE
        }
        ahead = [
            entry["ne_lifted"] <= MARGIN * entry["ne_rigid_lifted"]
            for entry in large.values()
        ]
        worse = [n for n, e in large.items() if e["ne_lifted"] > e["ne_flat"]]
        print(
            f"seed {run['seed']}: {np.mean(ahead):.0%} of {len(large)} large ones "
            f"at most {MARGIN} x rigid_lifted; worse than flat: {worse or 'none'}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
