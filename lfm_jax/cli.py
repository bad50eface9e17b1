"""The `lfm` command: use what was trained.

One verb, one function. Whatever is heavy is imported inside the verb, so that help
and mistakes come back at once. Bad input ends in one sentence on stderr and exit
status 2.
"""

import argparse
import dataclasses
import os
import pathlib
import re
import sys
from collections.abc import Sequence

from lfm_jax.errors import LfmError
from lfm_jax.options import parse_bone, parse_edges, parse_renames, parse_size

DESCRIPTION = "3D skeletons from 2D keypoints of any object, learned without 3D labels."
LIFT = """\
Lift 2D keypoints to 3D with a trained model.

INPUT holds 2D keypoints: DeepLabCut (.csv, .h5), SLEAP (.slp, .h5), COCO or MediaPipe
(.json), NWB (.nwb), a plain table (.csv) or a keypoint archive (.npz). Its keypoints
are matched to those of the category by name, in any order; keypoints that it lacks are
predicted from the others. Frames with fewer than 4 visible points are left out and
counted. OUT is .npz (everything), .csv (the table of Anipose), .trc or .c3d; several
individuals become several files, OUT with _NAME before its suffix. Frame: x right and
y down as in the image, z away from the camera. Lengths are in the units of the input
unless --bone gives a scale. docs/files.md has the details.
"""
LIFT_EXAMPLE = """\
example:
  lfm lift walk.csv --checkpoint=runs/lfm2d --category=dog \\
      --map snout=Nose --map tail=TailBase --bone Hip,Knee=120mm --out=walk.npz
"""
INSPECT = """\
Say what a file of 2D keypoints holds: its kind, individuals, frames, keypoints, and how
much of each is missing. With --checkpoint, guess by the names of the keypoints which
category of that model they are of.
"""
INSPECT_EXAMPLE = """\
example:
  lfm inspect walk.csv --checkpoint=runs/lfm2d
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
TRAINING = """\
models of many categories are trained by a command of their own:
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
    except BrokenPipeError:  # Whoever reads the output, `head` perhaps, has enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lfm",
        description=DESCRIPTION,
        epilog=f"lift, {LIFT_EXAMPLE}\ninspect, {INSPECT_EXAMPLE}\n"
        f"view, {VIEW_EXAMPLE}\ntrain, {TRAIN_EXAMPLE}\n{TRAINING}",
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
    _add_input(lift)
    _add_model(lift)
    _add_output(lift)
    inspect = verbs.add_parser(
        "inspect",
        help="say what a file of 2D keypoints holds",
        description=INSPECT,
        epilog=INSPECT_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    inspect.set_defaults(verb=_inspect)
    _add_input(inspect)
    inspect.add_argument(
        "--checkpoint", metavar="DIR", help="work directory of a run, to guess from"
    )
    view = verbs.add_parser(
        "view",
        help="look at lifted keypoints in a browser",
        description=VIEW,
        epilog=VIEW_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    view.set_defaults(verb=_view)
    _add_view(view)
    train = verbs.add_parser(
        "train",
        help="learn a category of your own from 2D keypoints",
        description=TRAIN,
        epilog=TRAIN_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.set_defaults(verb=_train)
    _add_train(train)
    return parser


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
        "--checkpoint", metavar="DIR", required=True, help="work directory of a run"
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
        help="frames per second, where INPUT does not say; .trc and .c3d need it",
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


# ------------------------------------------------------------------------------- lift


def _lift(options: argparse.Namespace) -> None:
    from lfm_jax.serve import Lifter, check_bone
    from lfm_jax.writers import check_kind

    renames, bone = parse_renames(options.map), parse_bone(options.bone)
    out, individuals = pathlib.Path(options.out), _chosen(options)
    check_kind(out, options.up, individuals[0].fps)
    places = _places(out, individuals)
    lifter = Lifter.from_workdir(options.checkpoint)
    if bone is not None:
        check_bone(lifter.skeleton(options.category), bone[0])
    failed = []
    for place, keypoints in zip(places, individuals, strict=True):
        try:
            _lift_one(options, lifter, keypoints, renames, bone, place)
        except LfmError as error:
            failed.append(error)
    if len(failed) == len(places):
        raise failed[0]
    for error in failed:
        print(f"left out: {error}", file=sys.stderr)


def _read(file: str, options: argparse.Namespace) -> tuple:
    from lfm_jax.data.readers import THRESHOLD, read_keypoints

    threshold = THRESHOLD if options.threshold is None else options.threshold
    size = parse_size(options.image_size)
    return read_keypoints(file, threshold=threshold, image_size=size)


def _chosen(options: argparse.Namespace) -> list:
    """The individuals to lift, with the frame rate that is known of them."""
    from lfm_jax.config import suggest

    individuals = list(_read(options.input, options))
    names = [one.individual for one in individuals]
    if options.individual is not None:
        if options.individual not in names:
            known = suggest(options.individual, names) if any(names) else ""
            raise LfmError(
                f"{options.input} has no individual '{options.individual}'{known}."
            )
        individuals = [individuals[names.index(options.individual)]]
    if options.fps is None:
        return individuals
    if not 0 < options.fps < float("inf"):
        raise LfmError(f"--fps {options.fps:g} must be above zero.")
    return [dataclasses.replace(one, fps=options.fps) for one in individuals]


def _places(out: pathlib.Path, individuals: Sequence) -> list[pathlib.Path]:
    """Where each individual is written."""
    if len(individuals) == 1:
        return [out]
    # Names come from a file that nobody vouches for; they must not become paths.
    safe = [re.sub(r"[^\w-]+", "_", one.individual) for one in individuals]
    if len({name.casefold() for name in safe}) < len(safe):
        raise LfmError(
            f"The names of the individuals differ too little to be names of files "
            f"({', '.join(safe)}): choose each with --individual."
        )
    return [out.with_name(f"{out.stem}_{name}{out.suffix}") for name in safe]


def _lift_one(options, lifter, keypoints, renames, bone, place) -> None:
    from lfm_jax.serve import rescaled
    from lfm_jax.writers import write_lifted

    kept = lifter.liftable(keypoints, category=options.category, renames=renames)
    lifted = lifter.lift_keypoints(kept, category=options.category, renames=renames)
    if bone is not None:
        lifted = rescaled(lifted, *bone)
    write_lifted(place, lifted, up=options.up)
    if keypoints.individual:
        print(f"individual: {keypoints.individual}")
    print(_summary(lifted, len(keypoints.frames)))
    print(_scaling(lifted, bone and bone[0]))
    print(f"written to {place}")


def _scaling(lifted, bone: tuple[str, str] | None) -> str:
    """What lengths are in, and how far to trust that."""
    from lfm_jax.serve import bone_lengths

    if bone is None:
        return "lengths: in units of the input; --bone A,B=LENGTH makes them metric"
    lengths = bone_lengths(lifted, bone)
    return (
        f"lengths: in {lifted.units}, {lifted.unit_length:.4g} to a unit of the input, "
        f"from {bone[0]} to {bone[1]} in {len(lengths)} frames, where that length "
        f"varies by {lengths.std() / lengths.mean():.1%}"
    )


# ---------------------------------------------------------------------------- summary


def _summary(lifted, frames: int) -> str:
    given = lifted.visible.any(0)
    shown, hidden, unknown = given.sum(), (~given).sum(), len(lifted.unknown)
    which = f" ({', '.join(lifted.unknown)})" if unknown else ""
    count = len(lifted.points2d)
    return f"""\
{lifted.category}: {count} frames, {lifted.visible.sum()} visible points; \
{frames - count} of {frames} frames left out (too few points)
keypoints: {shown} of {len(given)} seen, {hidden} hidden in every frame, \
{unknown} of the input unknown to the category{which}
reprojection error: {lifted.reprojection.mean():.2f} % of the size of the shape
{_trust(lifted)}
sign of depth: {lifted.depth_sign}{_unusual(lifted)}"""


def _unusual(lifted) -> str:
    """A warning where the input is not what the model knows."""
    count = lifted.unusual.sum()
    if count <= max(1, 0.05 * len(lifted.unusual)):
        return ""
    return (
        f"\nwarning: {count} of {len(lifted.unusual)} frames fit '{lifted.category}' "
        "worse than 99 in 100 that it knows (unusual in .npz): do not trust them; are "
        "the keypoints of this category, and rightly matched?"
    )


def _trust(lifted) -> str:
    """The keypoints that are known best and worst, by their confidence."""
    from lfm_jax.train.confidence import WITHIN

    each = lifted.confidence.mean(axis=0)
    if not (each >= 0.0).all():
        return "confidence: not known, as training has not come to its end"
    best, worst = each.argmax(), each.argmin()
    return (
        f"confidence: {each.mean():.0%} of points within {WITHIN:.0%} of the size of "
        f"the shape, from {lifted.names[worst]} ({each[worst]:.0%}) to "
        f"{lifted.names[best]} ({each[best]:.0%})"
    )


# ---------------------------------------------------------------------------- inspect


def _inspect(options: argparse.Namespace) -> None:
    from lfm_jax.inspection import describe, guess
    from lfm_jax.skeleton_io import read_skeletons
    from lfm_jax.workdir import SKELETONS

    individuals = _read(options.input, options)
    lines = [f"file: {options.input}", *describe(individuals)]
    if options.checkpoint is not None:
        known, _ = read_skeletons(pathlib.Path(options.checkpoint) / SKELETONS)
        lines.append(guess(individuals, known))
    print("\n".join(lines))


# ------------------------------------------------------------------------------- view


def _view(options: argparse.Namespace) -> None:
    import webbrowser

    from lfm_jax.viz.recording import write_recording
    from lfm_jax.viz.view import write_page
    from lfm_jax.writers import read_lifted

    write, suffix = write_page, ".html"
    if options.rerun:
        write, suffix = write_recording, ".rrd"
    first = pathlib.Path(options.files[0])
    out = pathlib.Path(options.out) if options.out else first.with_suffix(suffix)
    if out.suffix.lower() != suffix:
        raise LfmError(f"{out} does not end in {suffix}: name it so.")
    lifted = [read_lifted(file) for file in options.files]
    write(out, lifted, [pathlib.Path(file).name for file in options.files])
    print(f"written to {out}")
    if not (options.rerun or options.no_open):
        webbrowser.open(out.resolve().as_uri())


# ------------------------------------------------------------------------------ train


def _train(options: argparse.Namespace) -> None:
    from lfm_jax.data.collect import collect
    from lfm_jax.own import check_views, measure_views, train_own

    individuals = [one for file in options.files for one in _read(file, options)]
    category = collect(individuals, options.name, parse_edges(options.edge))
    spread = measure_views(category)
    print(
        f"{len(category.sequence)} frames in {len(individuals)} clips, "
        f"{len(category.keypoints)} keypoints; views differ by {spread:.0f} degrees",
        flush=True,
    )
    if not options.anyway:
        check_views(spread)
    train_own(pathlib.Path(options.out), category, options.seed)
    print(
        f"lift with: lfm lift FILE --checkpoint={options.out} "
        f"--category={options.name} --out=OUT.npz"
    )
