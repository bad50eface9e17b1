"""Classical methods on four clips, beside what was published of BMM.

    python benchmarks/classical.py DIR

drink, stretch, pickup and dance are projected by a camera that turns by five degrees a
frame about the vertical, the direction and the first angle being those of Akhter et
al. Every method is fitted to the frames that it is judged by (transductive). Printed
are the normalised 3D error of Akhter et al. and Dai et al. (mean distance over the mean
standard deviation of the true coordinates of a frame), after one rotation or mirror
image of the whole clip and in the scale that was found, and the error `ne`, for which
every frame has a similarity of its own. Yardsticks, with the true cameras: depth zero,
and BMM's shapes.
"""

import argparse
import pathlib

import jax.numpy as jnp
import numpy as np

from lfm_jax import metrics
from lfm_jax.classical.bmm import bmm, recover_shapes
from lfm_jax.classical.factorization import bregler, tomasi_kanade
from lfm_jax.data.archive import read_category

# numbers of bases, and published errors of BMM on the original clips and cameras
CLIPS = {
    "drink": (12, 0.027),
    "stretch": (11, 0.103),
    "pickup": (12, 0.173),
    "dance": (10, 0.186),
}
STEP = 5.0  # degrees a frame


def orbit(frames: int) -> np.ndarray:
    """World to camera [f 3 3], z of the world being up and y of the image down."""
    angle = np.radians(STEP) * np.arange(1, frames + 1)
    sine, cosine, zero = np.sin(angle), np.cos(angle), np.zeros(frames)
    right = np.stack([sine, cosine, zero], axis=1)
    down = np.stack([zero, zero, zero - 1.0], axis=1)
    return np.stack([right, down, np.cross(right, down)], axis=1)


def normalised_error(shapes, true) -> float:
    """Of shapes [f n 3] after the best rotation or mirror image of all together."""
    left, _, right = np.linalg.svd(np.einsum("fni,fnj->ij", true, shapes))
    distance = np.linalg.norm(shapes @ (left @ right).T - true, axis=2)
    return distance.mean() / true.std(axis=1).mean()


def ne(shapes, true) -> float:
    """Mean over frames, the depth sign chosen once."""
    shapes, true = (jnp.asarray(points, jnp.float32) for points in (shapes, true))
    mask = jnp.ones(true.shape[:2], bool)
    signs = (shapes, metrics.mirror_depth(shapes))
    return min(float(jnp.mean(metrics.ne(points, true, mask))) for points in signs)


def methods(points2d, rotations, bases):
    """Name and shapes [f n 3] of every method, in the scale of the image."""
    flat = np.append(points2d, np.zeros((*points2d.shape[:2], 1)), axis=2)
    yield "flat, true cameras", flat @ rotations
    for name, found in (
        ("Tomasi-Kanade", tomasi_kanade(points2d)),
        ("Bregler", bregler(points2d, bases)),
        ("BMM", bmm(points2d, bases)),
    ):
        yield name, found.scales[:, None, None] * found.points3d
    yield "BMM, true cameras", recover_shapes(points2d, rotations, bases)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dir", help="folder of keypoint archives")
    folder = pathlib.Path(parser.parse_args().dir)
    errors = {}
    for clip, (bases, published) in CLIPS.items():
        true = read_category(folder / f"nrsfm__{clip}.npz").points3d.astype(np.float64)
        true = true - true.mean(axis=1, keepdims=True)
        rotations = orbit(len(true))
        points2d = (true @ rotations.swapaxes(1, 2))[..., :2]
        errors.setdefault("published BMM", []).append(f"{published:.3f}")
        for name, shapes in methods(points2d, rotations, bases):
            cell = f"{normalised_error(shapes, true):.3f} ({ne(shapes, true):.1f})"
            errors.setdefault(name, []).append(cell)
    print("| normalised error (ne) |", " | ".join(CLIPS), "|")
    print("|---" * (len(CLIPS) + 1) + "|")
    for name, cells in errors.items():
        print(f"| {name} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
