"""What the `lfm` command takes: its verbs, their options, and options that are more
than a word."""

import argparse
import re
from collections.abc import Sequence

from lfm_jax.errors import LfmError

DEFAULT = "lfm2d-small"  # what `lfm_jax.load` loads too
DESCRIPTION = "3D skeletons from 2D keypoints of any object, learned without 3D labels."
LIFT = """\
Lift 2D keypoints to 3D with a trained model.

INPUT holds 2D keypoints: DeepLabCut (.csv, .h5), SLEAP (.slp, .h5), COCO or MediaPipe
(.json), NWB (.nwb), a plain table (.csv) or a keypoint archive (.npz). Its keypoints
are matched to those of the category by name, in any order; keypoints that it lacks are
predicted from the others. Frames with fewer than 4 visible points are left out and
counted. OUT is .npz (everything), .csv (the table of Anipose), .trc, .c3d or .glb (a
moving skeleton); several individuals become several files, OUT with _NAME before its
suffix. Frame: x right and y down as in the image, z away from the camera. Lengths are
in the units of the input unless --bone gives a scale. docs/files.md has the details.
"""
LIFT_EXAMPLE = """\
example:
  lfm lift walk.csv --category=dog --map snout=Nose --map tail=TailBase \\
      --bone L_B_Knee,L_B_Paw=120mm --out=walk.npz
"""
INSPECT = """\
Say what a file of 2D keypoints holds: its kind, individuals, frames, keypoints, and how
much of each is missing; and guess by the names of the keypoints which category of the
model they are of.
"""
INSPECT_EXAMPLE = """\
example:
  lfm inspect walk.csv
"""
VIEW = """\
Look at what lfm lift wrote as .npz: 2D beside 3D, frame by frame, coloured by
confidence. Writes one page that needs no network, beside FILE or to --out, and opens
it. Several files of the same keypoints (individuals, or other models) can be chosen in
the page and compared, as two are from the beginning: both centred and equally large.
"""
VIEW_EXAMPLE = """\
example:
  lfm view walk.npz
"""
TRAIN = """\
Learn a category of your own from its 2D keypoints alone, so that lfm lift can lift it.

FILEs hold the same keypoints of one kind of object (the kinds of file are those of lfm
lift); the more frames from the more sides, the better. An object that is always seen
from one side cannot be lifted: this is measured first, and said. OUT becomes the work
directory of a run, with report.html in it; the same command goes on where it was
stopped, and training ends by itself.
"""
TRAIN_EXAMPLE = """\
example:
  lfm train day1.csv day2.csv --name=mouse --edge Nose,Neck --out=runs/mouse
  lfm lift day1.csv --checkpoint=runs/mouse --category=mouse --out=day1.npz
"""
EXPORT = """\
Make a release of a run: a folder that lifts like it and is much smaller. Besides what
lfm lift reads, it holds the weights as safetensors and lifting as one StableHLO
program, which runs with JAX alone; these two need pip install 'lfm_jax[export]'.
"""
EXPORT_EXAMPLE = """\
example:
  lfm export runs/mouse --out=mouse
"""
TRAINING = """\
models of many categories are trained by a command of their own:
  python -m lfm_jax.main --config=configs/lfm2d.py --workdir=runs/lfm2d
"""


def make_parser() -> argparse.ArgumentParser:
    """Every verb with what it takes; `verb` is the name of the one chosen."""
    parser = argparse.ArgumentParser(
        prog="lfm",
        description=DESCRIPTION,
        epilog="\n".join(f"{name}, {verb[2]}" for name, verb in VERBS.items())
        + f"\n{TRAINING}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for name, (summary, description, example, add) in VERBS.items():
        verb = verbs.add_parser(
            name,
            help=summary,
            description=description,
            epilog=example,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.set_defaults(verb=name)
        add(verb)
    return parser


def _add_lift(verb: argparse.ArgumentParser) -> None:
    _add_input(verb)
    _add_model(verb)
    _add_output(verb)


def _add_inspect(verb: argparse.ArgumentParser) -> None:
    _add_input(verb)
    verb.add_argument(
        "--checkpoint",
        metavar="MODEL",
        default=DEFAULT,
        help="what to guess from, as for lfm lift",
    )


def _add_export(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run", metavar="RUN", help="work directory of a run")
    verb.add_argument("--out", metavar="OUT", required=True, help="folder to make")
    verb.add_argument(
        "--small", action="store_true", help="leave out what other programs read"
    )


def _add_input(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("input", metavar="INPUT", help="file of 2D keypoints")
    _add_reading(verb)


def _add_reading(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--threshold",
        metavar="P",
        type=float,
        help="points less likely than this count as missing (default: 0.6)",
    )
    verb.add_argument(
        "--image-size",
        metavar="WIDTHxHEIGHT",
        help="pixels of the image, where coordinates are shares of it (MediaPipe)",
    )


def _add_model(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--checkpoint",
        metavar="MODEL",
        default=DEFAULT,
        help="work directory of a run, or a release (default: the one that comes with "
        "the package)",
    )
    verb.add_argument(
        "--category", metavar="NAME", required=True, help="what the keypoints are of"
    )
    verb.add_argument(
        "--map",
        metavar="THEIRS=OURS",
        action="append",
        default=[],
        help="a keypoint of INPUT and what the category calls it; may be repeated",
    )
    verb.add_argument(
        "--individual", metavar="NAME", help="lift only this one of several"
    )


def _add_output(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--bone",
        metavar="A,B=LENGTH",
        help="the true distance of two keypoints of the category, in mm (or 12cm, "
        "0.12m): scales so that their median distance is that",
    )
    verb.add_argument(
        "--fps",
        metavar="RATE",
        type=float,
        help="frames per second, where INPUT does not say; .trc, .c3d and .glb need it",
    )
    verb.add_argument(
        "--smooth",
        metavar="HZ",
        type=float,
        help="take out what moves faster (zero-phase Butterworth; default: nothing)",
    )
    verb.add_argument(
        "--up",
        choices=("y", "z"),
        default="",
        help="turn a .csv, .trc or .c3d so that this axis points up in the image",
    )
    verb.add_argument(
        "--out", metavar="OUT", required=True, help="file to write, by its suffix"
    )


def _add_view(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "files", metavar="FILE", nargs="+", help=".npz that lfm lift wrote"
    )
    verb.add_argument(
        "--out", metavar="OUT", help="file to write (default: FILE with its suffix)"
    )
    verb.add_argument(
        "--rerun",
        action="store_true",
        help="write a recording for rerun (.rrd) instead of the page",
    )
    verb.add_argument(
        "--no-open", action="store_true", help="write the page, but open no browser"
    )


def _add_train(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("files", metavar="FILE", nargs="+", help="file of 2D keypoints")
    _add_reading(verb)
    verb.add_argument("--name", required=True, help="what to call the category")
    verb.add_argument(
        "--edge",
        metavar="A,B",
        action="append",
        default=[],
        help="two keypoints to join by a line where they are drawn; may be repeated",
    )
    verb.add_argument(
        "--anyway", action="store_true", help="train though all views are alike"
    )
    verb.add_argument("--seed", type=int, default=0, help="of the run (default: 0)")
    verb.add_argument(
        "--out", metavar="OUT", required=True, help="work directory of the run"
    )


VERBS = {  # name: in a line, what it does, an example, what it takes
    "lift": (
        "lift 2D keypoints of a file to 3D with a trained model",
        *(LIFT, LIFT_EXAMPLE, _add_lift),
    ),
    "inspect": (
        "say what a file of 2D keypoints holds",
        *(INSPECT, INSPECT_EXAMPLE, _add_inspect),
    ),
    "view": (
        "look at lifted keypoints in a browser",
        *(VIEW, VIEW_EXAMPLE, _add_view),
    ),
    "train": (
        "learn a category of your own from 2D keypoints",
        *(TRAIN, TRAIN_EXAMPLE, _add_train),
    ),
    "export": ("hand on what was trained", EXPORT, EXPORT_EXAMPLE, _add_export),
}


# ----------------------------------------------------------------- values of options


def parse_renames(pairs: Sequence[str]) -> dict[str, str]:
    """Their names to ours."""
    found = {}
    for pair in pairs:
        theirs, equals, ours = pair.partition("=")
        if not (theirs and equals and ours):
            raise LfmError(f"--map {pair} is not of the form theirs=ours.")
        if theirs in found:
            raise LfmError(f"--map names '{theirs}' twice: keep one.")
        found[theirs] = ours
    return found


def parse_bone(option: str | None) -> tuple[tuple[str, str], float, str] | None:
    """Two keypoints, their distance and its unit."""
    if option is None:
        return None
    match = re.fullmatch(r"([^,=]+),([^,=]+)=([0-9.eE+-]+) ?(mm|cm|m|)", option)
    try:
        length = float(match[3])
    except (TypeError, ValueError):
        length = 0.0
    if not 0 < length < float("inf"):
        raise LfmError(
            f"--bone {option} is not of the form A,B=LENGTH, such as Hip,Knee=120mm."
        )
    return (match[1], match[2]), length, match[4] or "mm"


def parse_size(option: str | None) -> tuple[int, int] | None:
    """Width and height."""
    if option is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", option)
    if not match:
        raise LfmError(
            f"--image-size {option} is not of the form WIDTHxHEIGHT, such as 1920x1080."
        )
    return int(match[1]), int(match[2])


def parse_edges(pairs: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of keypoints that are joined."""
    found = []
    for pair in pairs:
        ends = tuple(pair.split(","))
        if len(ends) != 2 or not all(ends):
            raise LfmError(f"--edge {pair} is not of the form A,B.")
        found.append(ends)
    return found
