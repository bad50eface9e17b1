"""One table from several runs that differ in their seed.

    python benchmarks/seeds.py runs/archive-0 runs/archive-1 runs/archive-2

Reads eval.json of each work directory and prints the mean over the runs with the
smallest and largest value, the same for either half of the categories (every second in
the order of names), the share of large categories in which ours beats rigid by 13 %,
every large category in which ours is worse than flat, and a table of all categories.
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
TABLE = (
    *("ne_flat", "ne_rigid_lifted", "ne_mean_shape_lifted", "ne_start_lifted"),
    *("ne_lifted", "ne_canonical"),
)
LARGE, MARGIN = 200, 0.87  # training frames; share of the rigid error


def entries(runs: list[dict], name: str, key: str) -> np.ndarray:
    return np.array([run["categories"][name].get(key, np.nan) for run in runs])


def category_table(runs: list[dict]) -> str:
    """Markdown, a row per category; our own error with its smallest and largest."""
    lines = []
    for name, entry in runs[0]["categories"].items():
        columns = [entries(runs, name, key) for key in TABLE]
        cells = [f"{column.mean():.1f}" for column in columns]
        ours = columns[TABLE.index("ne_lifted")]
        cells[TABLE.index("ne_lifted")] += f" ({ours.min():.1f} to {ours.max():.1f})"
        lines.append(f"| {name} | {entry['train_frames']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(folders: list[str]) -> None:
    runs = [json.loads((pathlib.Path(f) / "eval.json").read_text()) for f in folders]
    print(f"seeds {[run['seed'] for run in runs]}, {runs[0]['split']} split")
    for name in COLUMNS:
        values = np.array([run["mean"][name] for run in runs])
        spread = f"{values.min():.2f} to {values.max():.2f}"
        print(f"{name:30}{values.mean():8.2f}   {spread}")
    names = sorted(runs[0]["categories"])
    for half in (names[::2], names[1::2]):
        ours, mean = (
            np.nanmean([entries(runs, name, key) for name in half])
            for key in ("ne_lifted", "ne_mean_shape_lifted")
        )
        print(f"half from {half[0]:20} ours {ours:.2f}, mean shape* {mean:.2f}")
    for run in runs:
        large = {
            name: entry
            for name, entry in run["categories"].items()
            if entry["train_frames"] >= LARGE and "ne_lifted" in entry
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
    print(category_table(runs))


if __name__ == "__main__":
    main(sys.argv[1:])
