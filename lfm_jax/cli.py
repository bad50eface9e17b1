"""The `lfm` command: use what was trained.

One verb, one function. Whatever is heavy is imported inside the verb, so that help
and mistakes come back at once. Bad input ends in one sentence on stderr and exit
status 2.
"""

import argparse
import contextlib
import dataclasses
import logging
import os
import pathlib
import re
import sys
import threading
from collections.abc import Iterator, Sequence

from lfm_jax.errors import LfmError
from lfm_jax.memory import keep_freed
from lfm_jax.options import (
    make_parser,
    parse_bone,
    parse_edges,
    parse_renames,
    parse_size,
)

PATIENCE = 3.0  # seconds
COMPILING = (
    "lifting; the first time that so many keypoints are lifted, a program is compiled "
    "for about half a minute, and kept"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; the exit status is 2 where the input is at fault."""
    options = make_parser().parse_args(arguments)
    keep_freed()
    try:
        VERBS[options.verb](options)
    except LfmError as error:
        print(f"lfm: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # Whoever reads the output, `head` perhaps, has enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


# ------------------------------------------------------------------------------- lift


def _lift(options: argparse.Namespace) -> None:
    from lfm_jax.release import load
    from lfm_jax.serve import check_bone
    from lfm_jax.writers import check_kind

    renames, bone = parse_renames(options.map), parse_bone(options.bone)
    out, individuals = pathlib.Path(options.out), _chosen(options)
    check_kind(out, options.up, individuals[0].fps)
    if options.smooth is not None:
        from lfm_jax.smoothing import check_cutoff

        check_cutoff(options.smooth, individuals[0].fps)
    places = _places(out, individuals)
    for place in places:
        if place.exists() and place.samefile(options.input):
            raise LfmError(f"{place} is the input itself: name another --out.")
    _keep_compiled()
    lifter = load(options.checkpoint)
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


def _keep_compiled() -> None:
    """What was compiled once is kept in the user's cache: most of the time of a lift.

    JAX_COMPILATION_CACHE_DIR says another place.
    """
    import jax

    if not jax.config.jax_compilation_cache_dir:
        usual = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        jax.config.update("jax_compilation_cache_dir", os.path.join(usual, "lfm_jax"))
        # dozens of small programs take longer together than the network
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


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
    with _patience():
        lifted = lifter.lift_keypoints(kept, category=options.category, renames=renames)
    if bone is not None:
        lifted = rescaled(lifted, *bone)
    if options.smooth is not None:
        from lfm_jax.smoothing import smoothed

        lifted = smoothed(lifted, options.smooth)
    write_lifted(place, lifted, up=options.up)
    print(_summary(lifted, keypoints))
    print(_trust(lifted))
    print(f"written: {place}, lengths in {_lengths(lifted, bone and bone[0])}", end="")
    print(f"; smoothed: {lifted.smoothing}" if lifted.smoothing else "")
    _warn(lifted)


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Says, if it takes long, why it may."""
    say = threading.Timer(PATIENCE, print, [COMPILING], {"file": sys.stderr})
    say.daemon = True
    say.start()
    try:
        yield
    finally:
        say.cancel()


# ------------------------------------------------- what lfm lift says, in three lines


def _summary(lifted, keypoints) -> str:
    count, frames = len(lifted.points2d), len(keypoints.frames)
    given = lifted.visible.any(axis=0)
    parts = [f"lifted: {count} of {frames} frames of {lifted.category}"]
    if keypoints.individual:
        parts[0] += f", {keypoints.individual}"
    if count < frames:
        parts[0] += " (too few points in the others)"
    parts.append(f"{given.sum()} of {len(given)} keypoints seen")
    if not given.all():
        parts[-1] += ", the others predicted"
    if lifted.unknown:
        parts.append(f"unknown to the category: {', '.join(lifted.unknown)}")
    return "; ".join(parts)


def _trust(lifted) -> str:
    """How far to, and which keypoints are known best and worst."""
    from lfm_jax.train.confidence import WITHIN

    each = lifted.confidence.mean(axis=0)
    known = "how far is not known, as training has not come to its end"
    if lifted.unusual.mean() > 0.5:
        known = "how far is not known, as most frames are unlike those it knows"
    elif (each >= 0.0).all():
        best, worst = each.argmax(), each.argmin()
        known = (
            f"{each.mean():.0%} of points within {WITHIN:.0%} of the shape's size, "
            f"from {lifted.names[worst]} ({each[worst]:.0%}) to {lifted.names[best]} "
            f"({each[best]:.0%})"
        )
    return (
        f"trust: {known}; reprojection error {lifted.reprojection.mean():.1f}%; "
        f"sign of depth {lifted.depth_sign}"
    )


def _lengths(lifted, bone: tuple[str, str] | None) -> str:
    """What lengths are in, and how far to trust that."""
    from lfm_jax.serve import bone_lengths

    if bone is None:
        return "units of the input (--bone A,B=LENGTH makes them metric)"
    lengths = bone_lengths(lifted, bone)
    return (
        f"{lifted.units}, {lifted.unit_length:.4g} to a unit of the input, from "
        f"{bone[0]} to {bone[1]} in {len(lengths)} frames, where that length varies by "
        f"{lengths.std() / lengths.mean():.1%}"
    )


def _warn(lifted) -> None:
    """Where the input is not what the model knows."""
    count = lifted.unusual.sum()
    if count > max(1, 0.05 * len(lifted.unusual)):
        print(
            f"warning: {count} of {len(lifted.unusual)} frames fit '{lifted.category}' "
            "worse than 99 in 100 that it knows (unusual in .npz): do not trust them; "
            "are the keypoints of this category, and rightly matched?"
        )


# ---------------------------------------------------------------------------- inspect


def _inspect(options: argparse.Namespace) -> None:
    from lfm_jax.inspection import describe, guess
    from lfm_jax.skeleton_io import read_skeletons
    from lfm_jax.workdir import SKELETONS, find

    individuals = _read(options.input, options)
    lines = [f"file: {options.input}", *describe(individuals)]
    known, _ = read_skeletons(find(options.checkpoint) / SKELETONS)
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
    count = len(individuals)
    print(
        f"{len(category.sequence)} frames in {count} clip{'s' * (count > 1)}, "
        f"{len(category.keypoints)} keypoints",
        flush=True,
    )
    spread = measure_views(category)
    print(f"views differ by {spread:.0f} degrees", flush=True)
    if not options.anyway:
        check_views(spread)
    # what is under way, a line at a time, on stderr
    logging.basicConfig(format="%(message)s")
    logging.getLogger("lfm_jax").setLevel(logging.INFO)
    train_own(pathlib.Path(options.out), category, options.seed)
    print(
        f"lift with: lfm lift FILE --checkpoint={options.out} "
        f"--category={options.name} --out=OUT.npz"
    )


# ----------------------------------------------------------------------------- export


def _export(options: argparse.Namespace) -> None:
    from lfm_jax.release import write_release

    out = pathlib.Path(options.out)
    write_release(pathlib.Path(options.run), out, options.small)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"written to {out}, {size / 1e6:.1f} MB")


VERBS = {
    "lift": _lift,
    "inspect": _inspect,
    "view": _view,
    "train": _train,
    "export": _export,
}
