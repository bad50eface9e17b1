"""Two, three and six views of the cheetah without calibration, and the yardsticks.

    python benchmarks/multiview.py DIR OUT --views=2,3,6 --seeds=0,1,2

DIR is the folder of keypoint archives. Its cheetah has 610 frames in six cameras; its
2D is the image of the 3D in the real (perspective) cameras, without detection noise.
Printed are PA-MPJPE in mm (similarity in SO(3), one mirror image for all frames) and,
in brackets, NE in percent, means over frames. Every run stays in OUT and goes on there.

    mv_nrsfm       trained on the 2D of all frames that it is judged by, as published
    held out       the same trained on the training clips, judged on the test clips
    single view    Deep NRSfM; every view is a frame, and its shape is judged
    rigid          one shape for all views and frames, from 2D alone
    frame by frame affine factorization of the views of a frame, a rigid scene; each
                   frame in the better of its two mirror images, which needs the 3D
    triangulated   affine cameras fitted to 2D and 3D: the least error of any method
                   whose cameras are affine, near enough
"""

import argparse
import pathlib

import jax.numpy as jnp
import numpy as np

from lfm_jax import metrics
from lfm_jax.classical.factorization import tomasi_kanade
from lfm_jax.config import from_config_dict, parse_arg
from lfm_jax.data.archive import read_category
from lfm_jax.multiview import METHOD
from lfm_jax.train.loop import train_and_evaluate
from lfm_jax.train.start import read_factorized
from lfm_jax.workdir import FACTORIZATION

CATEGORY = "nsp__cheetah"


def errors(shapes, true, *, flip=False) -> np.ndarray:
    """PA-MPJPE [f] in the better mirror image of all frames; of each with `flip`."""
    shapes, true = (jnp.asarray(points, jnp.float32) for points in (shapes, true))
    true = true - true.mean(axis=1, keepdims=True)
    mask = jnp.ones(true.shape[:2], bool)
    both = [
        np.asarray(metrics.pa_mpjpe(points, true, mask))
        for points in (shapes, metrics.mirror_depth(shapes))
    ]
    return np.minimum(*both) if flip else min(both, key=np.mean)


def cell(error, true) -> str:
    centred = true - true.mean(1, keepdims=True)
    radius = np.sqrt((centred**2).sum(2).mean(1))
    return f"{error.mean():.1f} ({100 * np.mean(error / radius):.1f})"


def learned(folder, out, **changes):
    """Predicted shapes and true ones of the frames that a run is judged by."""
    settings = METHOD | {"data.dir": folder, "data.only": CATEGORY}
    settings |= {key.replace("__", "."): value for key, value in changes.items()}
    config = from_config_dict(parse_arg(None, {}, settings))
    results = train_and_evaluate(config, str(out))
    test = results.dataset.evaluation.test[0]
    return results.predict(test.observation).canonical, test.points3d


def frame_by_frame(tracks):
    """Of [f v n 2], every view in units of its own size."""
    centred = tracks - tracks.mean(2, keepdims=True)
    size = np.sqrt((centred**2).sum((2, 3), keepdims=True))
    return np.stack([tomasi_kanade(views).points3d[0] for views in centred / size])


def triangulated(tracks, true):
    """By affine cameras that fit 2D [f v n 2] to 3D [f n 3]."""
    centred = tracks - tracks.mean(2, keepdims=True)
    shape = true - true.mean(1, keepdims=True)
    found = []
    for views, points in zip(centred, shape, strict=True):
        cameras = np.concatenate([np.linalg.lstsq(points, x)[0].T for x in views])
        images = np.concatenate([x.T for x in views])
        found.append(np.linalg.lstsq(cameras, images)[0].T)
    return np.stack(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dir", help="folder of keypoint archives")
    parser.add_argument("out", help="folder for the runs", type=pathlib.Path)
    parser.add_argument("--views", default="2,3,6")
    parser.add_argument("--seeds", default="0,1,2")
    given = parser.parse_args()
    archive = read_category(pathlib.Path(given.dir) / f"{CATEGORY}.npz")
    true = archive.points3d.astype(np.float64)
    seeds = [int(seed) for seed in given.seeds.split(",")]
    for views in (int(count) for count in given.views.split(",")):
        tracks = archive.projected2d_views[:views].swapaxes(0, 1).astype(np.float64)
        print(f"{views} views", flush=True)
        for seed in seeds:
            place = given.out / f"{views}_{seed}"
            for name, changes in (
                ("mv_nrsfm", {"data__transductive": True}),
                ("held out", {}),
                (
                    "single view",
                    {
                        "data__transductive": True,
                        "model__name": "deep_nrsfm",
                        "objective__name": "deep_nrsfm",
                    },
                ),
            ):
                here = place / name.replace(" ", "_")
                changes |= {"data__views": views, "seed": seed}
                shapes, known = learned(given.dir, here, **changes)
                print(f"  {name}, seed {seed}:", cell(errors(shapes, known), known))
        rigid = read_factorized(place / "mv_nrsfm" / FACTORIZATION).rigid
        rigid = np.broadcast_to(rigid[0], true.shape)
        print("  rigid:", cell(errors(rigid, true), true))
        if views > 2:
            error = errors(frame_by_frame(tracks), true, flip=True)
            print("  frame by frame:", cell(error, true))
        print("  triangulated:", cell(errors(triangulated(tracks, true), true), true))


if __name__ == "__main__":
    main()
