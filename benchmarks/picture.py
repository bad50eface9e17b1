"""The picture of the README, from a trained run: 2D beside what was made of it.

    python -m lfm_jax.main --config=configs/lfm2d.py --config.train.steps=50 \
        --config.data.only=human_h36m17,dog,hand21,drosophila --workdir=runs/picture
    python benchmarks/picture.py runs/picture docs/picture.svg

Of every category the test frame with the median error, as cameras that stand upright
see it (the family `upright`; the run learned from its own). A column: the 2D that was
lifted, and the lifted shape turned about the vertical, over the truth in grey, which
is brought onto it by a similarity.
"""

import dataclasses
import pathlib
import sys
import tempfile

import jax.numpy as jnp
import numpy as np

from lfm_jax import metrics, workdir
from lfm_jax.data.dataset import open_dataset
from lfm_jax.serve import Lifter
from lfm_jax.types import Labelled

SIZE, LEFT, TOP = 200, 104, 34
TURNS = {"2D, the input": 0, "3D, turned 45°": 45, "3D, turned 90°": 90}
NEAR, FAR, TRUE = np.array([16, 78, 139]), np.array([143, 190, 228]), "#d0d0d0"
TEXT = '<text x="{:.0f}" y="{:.0f}" text-anchor="{}">{}</text>'


def turned(points: np.ndarray, degrees: float) -> np.ndarray:
    """Points seen by a camera that walked so far around them."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return points @ np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])


def bones(points: np.ndarray, edges: np.ndarray, colour: str = "") -> list[str]:
    """Lines of a skeleton, the far ones first and paler, and dots on its joints."""
    depth = points[:, 2]
    near = (depth.max() - depth) / max(np.ptp(depth), 1e-9)
    drawn = []
    for a, b in sorted(edges.tolist(), key=lambda edge: -depth[edge].sum()):
        mixed = FAR + (NEAR - FAR) * (near[a] + near[b]) / 2
        ends = 'x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"'.format(
            *points[a, :2], *points[b, :2]
        )
        stroke = colour or "#{:02x}{:02x}{:02x}".format(*mixed.astype(int))
        drawn.append(f'<line {ends} stroke="{stroke}"/>')
    if not colour:
        drawn += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2"/>' for x, y, _ in points]
    return drawn


def column(lifter: Lifter, name: str, record: Labelled, left: float) -> list[str]:
    """One category: its name, the median frame's error, and the three panels."""
    seen = record.observation
    lifted = lifter.lift(seen.points2d, seen.observed, category=name)
    arrays = map(jnp.asarray, (lifted.points3d, record.points3d, record.evaluated))
    errors = np.asarray(metrics.ne(*arrays))
    row = np.argsort(errors)[len(errors) // 2]
    shape, true, known = lifted.points3d[row], record.points3d[row], seen.observed[row]
    true = np.asarray(metrics.align(*map(jnp.asarray, (true, shape, known))))
    shape, true = shape - shape.mean(axis=0), true - shape.mean(axis=0)
    unit = 0.46 * SIZE / np.linalg.norm(shape, axis=1).max()
    flat = shape * np.array([1, 1, 0])
    title = f"{name.split('_')[0]}, error {errors[row]:.1f} %"
    drawn = [TEXT.format(left + SIZE / 2, TOP - 12, "middle", title)]
    for number, degrees in enumerate(TURNS.values()):
        middle = np.array([left + SIZE / 2, TOP + (number + 0.5) * SIZE, 0])
        if degrees:
            drawn += bones(turned(true, degrees) * unit + middle, lifted.edges, TRUE)
        shown = turned(shape, degrees) if degrees else flat
        drawn += bones(shown * unit + middle, lifted.edges)
    return drawn


def main(run: str, out: str) -> None:
    lifter = Lifter.from_workdir(run)
    config = workdir.read_config(pathlib.Path(run) / workdir.CONFIG)
    upright = dataclasses.replace(config.data, camera="upright")
    with tempfile.TemporaryDirectory() as folder:
        tests = open_dataset(upright, folder).evaluation.test
    drawn = [
        TEXT.format(8, TOP + (number + 0.5) * SIZE, "start", label)
        for number, label in enumerate(TURNS)
    ]
    for number, (name, record) in enumerate(zip(lifter.categories, tests, strict=True)):
        drawn += column(lifter, name, record, LEFT + number * SIZE)
    width, height = LEFT + SIZE * len(tests), TOP + SIZE * len(TURNS)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
    style = 'font-family="sans-serif" font-size="13" stroke-width="3" '
    paper = '<rect width="100%" height="100%" fill="white" stroke="none"/>'
    drawn = [head + style + 'stroke-linecap="round">', paper, *drawn, "</svg>\n"]
    pathlib.Path(out).write_text("\n".join(drawn), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
