"""The `lfm` command: use what was trained.

One verb, one function. Whatever is heavy is imported inside the verb, so that help
and mistakes come back at once. Bad input ends in one sentence on stderr and exit
status 2.
"""

import argparse
import sys
from collections.abc import Sequence

from lfm_jax.errors import LfmError

DESCRIPTION = "3D skeletons from 2D keypoints of any object, learned without 3D labels."
LIFT = """\
Lift 2D keypoints to 3D with a trained model.

INPUT is a keypoint archive (.npz with points2d [frames, keypoints, 2] and, optionally,
visibility [frames, keypoints] and names [keypoints]) or a COCO keypoint file (.json).
Its keypoints are matched to those of the category by name, in any order; keypoints
that it lacks are predicted from the others. OUT holds, in the order of the category's
keypoints (names): points3d, points2d, visible, canonical, posed, rotation, scale,
translation, reprojection (percent of the size of the shape), edges, category,
depth_sign, labels (of the frames). Lengths are in the units of the input.
"""
LIFT_EXAMPLE = """\
example:
  lfm lift walk.json --checkpoint=runs/lfm2d --category=dog \\
      --map snout=Nose --map tail=TailBase --out=walk.npz
"""
TRAINING = """\
training and evaluation have a command of their own:
  python -m lfm_jax.main --config=configs/lfm2d.py --workdir=runs/lfm2d
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; the exit status is 2 where the input is at fault."""
    options = _parser().parse_args(arguments)
    try:
        options.verb(options)
    except LfmError as error:
        print(f"lfm: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lfm",
        description=DESCRIPTION,
        epilog=f"lift, {LIFT_EXAMPLE}\n{TRAINING}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    lift = verbs.add_parser(
        "lift",
        help="lift 2D keypoints of a file to 3D with a trained model",
        description=LIFT,
        epilog=LIFT_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    lift.set_defaults(verb=_lift)
    lift.add_argument("input", metavar="INPUT", help="2D keypoints, .npz or .json")
    lift.add_argument(
        "--checkpoint", metavar="DIR", required=True, help="work directory of a run"
    )
    lift.add_argument(
        "--category", metavar="NAME", required=True, help="what the keypoints are of"
    )
    lift.add_argument(
        "--map",
        metavar="THEIRS=OURS",
        action="append",
        default=[],
        help="a keypoint of INPUT and what the category calls it; may be repeated",
    )
    lift.add_argument("--out", metavar="OUT", required=True, help="file to write, .npz")
    return parser


def _lift(options: argparse.Namespace) -> None:
    from lfm_jax.data.readers import read_keypoints
    from lfm_jax.serve import Lifter, write_lifted

    renames = _renames(options.map)
    keypoints = read_keypoints(options.input)
    lifter = Lifter.from_workdir(options.checkpoint)
    lifted = lifter.lift_keypoints(
        keypoints, category=options.category, renames=renames
    )
    write_lifted(options.out, lifted)
    print(_summary(lifted))
    print(f"written to {options.out}")


def _renames(pairs: Sequence[str]) -> dict[str, str]:
    renames = {}
    for pair in pairs:
        theirs, equals, ours = pair.partition("=")
        if not (theirs and equals and ours):
            raise LfmError(f"--map {pair} is not of the form theirs=ours.")
        if theirs in renames:
            raise LfmError(f"--map names '{theirs}' twice: keep one.")
        renames[theirs] = ours
    return renames


def _summary(lifted) -> str:
    given = lifted.visible.any(0)
    shown, hidden, unknown = given.sum(), (~given).sum(), len(lifted.unknown)
    which = f" ({', '.join(lifted.unknown)})" if unknown else ""
    return f"""\
{lifted.category}: {len(lifted.points2d)} frames, {lifted.visible.sum()} visible points
keypoints: {shown} of {len(given)} seen, {hidden} hidden in every frame, \
{unknown} of the input unknown to the category{which}
reprojection error: {lifted.reprojection.mean():.2f} % of the size of the shape
sign of depth: {lifted.depth_sign}"""
