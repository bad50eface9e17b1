"""The table of a sweep from the tidy file that launch/sweep.py writes.

    python launch/sweep.py configs/sweeps/injection.py --config.data.dir=DIR
    python benchmarks/sweep_table.py runs/sweeps/injection.csv

A row for every setting that differs within the sweep, in the order of the sweep; seeds
are averaged: mean over categories, and in brackets the smallest and largest seed.
Errors are in % of a shape's RMS radius, on the test split; those of films
(lfm_jax/train/sequences.py) follow where there are any. With --by-category a table for
every category follows.
"""

import argparse
import csv
import itertools
import pathlib

COLUMNS = {
    "flat": "ne_flat",
    "rigid": "ne_rigid_lifted",
    "mean shape*": "ne_mean_shape_lifted",
    "lifted": "ne_lifted",
    "canonical": "ne_canonical",
    "variance": "shape_variance_ratio_median",
}
FILMS = {
    "FA, best flip": "ne_best_flip_lifted",
    "SA flat": "ne_sequence_flat",
    "SA mean shape*": "ne_sequence_mean_shape_lifted",
    "SA rigid": "ne_sequence_rigid_lifted",
    "SA": "ne_sequence_lifted",
    "SA, best flip": "ne_sequence_best_flip_lifted",
    "velocity flat": "ne_velocity_flat",
    "velocity mean shape*": "ne_velocity_mean_shape_lifted",
    "velocity rigid": "ne_velocity_rigid_lifted",
    "velocity": "ne_velocity_lifted",
    "velocity, best flip": "ne_velocity_best_flip_lifted",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("csv", type=pathlib.Path)
    parser.add_argument("--by-category", action="store_true")
    given = parser.parse_args()
    with given.csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    categories = dict.fromkeys(row["category"] for row in rows)
    for category in categories if given.by_category else ["mean"]:
        print(f"\n{category}\n" if given.by_category else "", end="")
        print(table([row for row in rows if row["category"] == category]))


def table(rows: list[dict[str, str]]) -> str:
    """Markdown: settings that differ, then errors."""
    keys = list(itertools.takewhile(lambda key: key != "category", rows[0]))
    keys = [key for key in keys if key not in ("run", "seed")]
    differ = [key for key in keys if len({row[key] for row in rows}) > 1]
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in differ), []).append(row)
    films = any(row.get("ne_sequence_lifted") for row in rows)
    columns = COLUMNS | FILMS if films else COLUMNS
    lines = [[*differ, "seeds", *columns], ["---"] * (len(differ) + 1 + len(columns))]
    for setting, seeds in groups.items():
        values = [
            [float(row.get(c) or "nan") for row in seeds] for c in columns.values()
        ]
        lines.append([*setting, str(len(seeds)), *map(cell, values)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(values: list[float]) -> str:
    """Mean (smallest to largest)."""
    mean, low, high = sum(values) / len(values), min(values), max(values)
    spread = f" ({low:.1f} to {high:.1f})" if f"{low:.1f}" != f"{high:.1f}" else ""
    return f"{mean:.1f}{spread}"


if __name__ == "__main__":
    main()
