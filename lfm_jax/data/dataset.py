"""From a folder of archives, or the zoo, to what training and evaluation read.

    archives or zoo -> split -> one 2D view per frame -> TFDS, 2D only -> TrainingData
                                                      -> EvaluationData, with 3D

3D never reaches the prepared training set: the builder's features have no place for it.
Coordinates stay in the units of the source.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import pathlib
from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Int

from lfm_jax import clips
from lfm_jax.config import DataConfig
from lfm_jax.data import archive, split, views
from lfm_jax.data.archive import Category
from lfm_jax.errors import LfmError
from lfm_jax.types import Labelled, Observation, Skeleton

RUN_FRAMES = 512  # frames of an example in the prepared training set


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """2D of the training frames: all that a 2D-only task may read.

    Attributes:
        skeletons: the categories; a category's id is its place here.
        observations: per category, NumPy, [f n], unpadded.
        sequences: per category, the clip of each frame.
        views: of every frame; with more than one, each has a row of its own in the
            observations and sequences, those of a frame side by side.
    """

    skeletons: tuple[Skeleton, ...]
    observations: tuple[Observation, ...]
    sequences: tuple[Int[np.ndarray, "_"], ...]
    views: int = 1


@dataclasses.dataclass(frozen=True)
class EvaluationData:
    """Per category what is known of each part; an Observation where there is no 3D.

    `Labelled.points3d` is in the camera frame of the frame's own view, in the units of
    the source, zero where not evaluated.
    """

    train: tuple[Labelled | Observation, ...]
    validation: tuple[Labelled | Observation, ...]
    test: tuple[Labelled | Observation, ...]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """All data of a run.

    Attributes:
        training: the 2D to train on.
        evaluation: the same frames and the held out ones, with 3D where there is any.
        skipped: categories that are left out, and why.
        split: what split.json holds: the cameras, the fingerprint of the training set,
            and per category the rule, the rows of the archive in each part, and how
            many frames were dropped.
    """

    training: TrainingData
    evaluation: EvaluationData
    skipped: dict[str, str]
    split: dict


@dataclasses.dataclass(frozen=True)
class _Seen:
    """A category with its parts, and what is seen of its frames."""

    category: Category
    view: Labelled | Observation
    rows: split.Split
    dropped: int
    views: int

    def part(self, name: str) -> Labelled | Observation:
        """All views of the frames of a part."""
        rows = _each_view(getattr(self.rows, name), self.views)
        return jax.tree.map(lambda array: array[rows], self.view)

    def sequence(self, name: str) -> np.ndarray:
        """The clip, in the archive, of each row of `part`."""
        return np.repeat(self.category.sequence[getattr(self.rows, name)], self.views)

    def clip(self, name: str) -> np.ndarray:
        """The clip of each row of `part`, from 0; with a frame missing it is two."""
        rows = getattr(self.rows, name)
        clip = self.category.sequence[rows]
        gone = np.diff(rows, prepend=rows[:1]) > 1
        new = gone | (np.diff(clip, prepend=clip[:1]) != 0)
        return np.repeat(np.cumsum(new, dtype=np.int32), self.views)

    def clips(self, name: str) -> Labelled | Observation:
        """`part`, with the clip that each row is of."""
        record = self.part(name)
        seen = dataclasses.replace(record.observation, clip=self.clip(name))
        if isinstance(record, Labelled):
            return dataclasses.replace(record, observation=seen)
        return seen


def open_dataset(config: DataConfig, workdir: str) -> Dataset:
    """Reads, splits, projects and prepares the data of a run.

    The training set is prepared below `workdir`/tfds, once for the same data.

    Raises:
        LfmError: a bad archive, an unknown category or camera, nothing left to train
            on, a work directory that cannot be written.
    """
    views.check_family(config.camera)
    if config.views > 1 and config.camera != "real":
        raise LfmError(
            f"data.views is {config.views}, which only real cameras give; set "
            "data.camera to real."
        )
    seen, skipped = [], {}
    for category in _categories(config):
        found = _see(category, len(seen), config)
        if isinstance(found, str):
            skipped[category.name] = found
        else:
            seen.append(found)
    if not seen:
        reasons = "; ".join(f"{name}: {why}" for name, why in skipped.items())
        raise LfmError(f"no category is left to train on ({reasons}): add data.")
    film = config.camera in views.BY_CLIP
    training = TrainingData(
        skeletons=tuple(one.category.skeleton for one in seen),
        observations=tuple(one.part("train").observation for one in seen),
        sequences=tuple(
            one.clip("train") if film else one.sequence("train") for one in seen
        ),
        views=config.views,
    )
    return Dataset(
        training=_through_tfds(training, pathlib.Path(workdir) / "tfds"),
        evaluation=EvaluationData(
            train=tuple(one.clips("train") for one in seen),
            validation=tuple(one.clips("validation") for one in seen),
            test=tuple(one.clips("test") for one in seen),
        ),
        skipped=skipped,
        split=_split_record(config, seen, skipped, fingerprint(training)),
    )


def _categories(config: DataConfig) -> list[Category]:
    if not config.dir:
        return _zoo(config.only)
    if not config.zoo:
        return archive.read_folder(config.dir, config.only)
    return archive.read_folder(config.dir, config.only) + _zoo("")


def _zoo(only):
    from lfm_jax.rigs import zoo  # sampling it is work that archives do not need

    return [_zoo_category(zoo, name) for name in archive.select(zoo.CATEGORIES, only)]


def _zoo_category(zoo, name):
    skeleton, sample = zoo.skeleton(name), zoo.sample_category(name)
    return Category(
        name=name,
        keypoints=skeleton.keypoints,
        edges=np.array(skeleton.edges, np.int32).reshape(-1, 2),
        units=skeleton.units,
        sequence=np.asarray(sample.sequence, np.int32),
        points3d=np.asarray(sample.points3d, np.float32),
        specimen=np.asarray(sample.specimen),
        up=np.array(zoo.UP, np.float32),
    )


def _see(category, category_id, config) -> _Seen | str:
    """The frames to use, split and seen, or why the category is left out."""
    frames = len(category.sequence)
    reason = split.too_few(frames) or views.unseen(
        category, config.camera, config.views
    )
    if reason:
        return reason
    if config.views > 1:
        view = views.several_views(category, category_id, config.views)
    else:
        cameras = config.camera, config.view_seed, config.occlusion
        view = views.one_view(category, category_id, *cameras)
    enough = view.observation.observed.sum(axis=1) >= views.MIN_VISIBLE
    usable = enough.reshape(frames, config.views).any(axis=1)
    few = f"fewer than {views.MIN_VISIBLE} visible points"
    if reason := split.too_few(int(usable.sum())):
        return f"{reason}; {frames - int(usable.sum())} with {few} were dropped"
    rows = split.all_rows(frames)
    if not config.transductive:
        rows = split.split_rows(category.name, category.sequence, category.specimen)
    parts = {part: getattr(rows, part) for part in ("train", "validation", "test")}
    kept = {part: chosen[usable[chosen]] for part, chosen in parts.items()}
    most = {"train": math.ceil(config.share * len(kept["train"]))}
    if config.held_out:
        most |= {"validation": config.held_out, "test": config.held_out}
    together = clips.LONGEST if config.camera in views.BY_CLIP else 1
    kept |= {part: _spaced(kept[part], most[part], together) for part in most}
    for part, chosen in kept.items():
        if not len(chosen):
            return f"all {part} frames have {few}"
    dropped = frames - int(usable.sum())
    chosen = split.Split(rows.rule, **kept)
    return _Seen(category, view, chosen, dropped, config.views)


def _spaced(rows, most, together):
    """At most so many of the rows, evenly spaced in stretches of at most `together`."""
    few = min(most, len(rows))
    stretches = max(-(-few // together), 1)
    first = np.arange(stretches) * len(rows) // stretches
    places = np.unique(first[:, None] + np.arange(-(-few // stretches)))
    return rows[places[places < len(rows)][:most]]


def _each_view(rows, count):
    """The rows of all views of frames."""
    return (rows[:, None] * count + np.arange(count)).ravel()


def _split_record(config, seen, skipped, training_set):
    categories = {
        one.category.name: {
            "rule": one.rows.rule,
            "train": one.rows.train.tolist(),
            "validation": one.rows.validation.tolist(),
            "test": one.rows.test.tolist(),
            "dropped": one.dropped,
        }
        for one in seen
    }
    return {
        "camera": config.camera,
        "view_seed": config.view_seed,
        "training_set": training_set,
        "categories": categories,
        "skipped": skipped,
    }


# ---------------------------------------------------------- the prepared training set


def _through_tfds(training: TrainingData, folder: pathlib.Path) -> TrainingData:
    """Prepares the training set where it is not yet, and reads it back.

    It is keyed by a fingerprint of all that is in it, so that a changed archive, camera
    or split is prepared anew; what is read back must have that fingerprint too.
    """
    # Only training needs TFDS; whoever lifts imports this room without it.
    from lfm_jax.data.builders.keypoint_archive import keypoint_archive_dataset_builder

    expected = fingerprint(training)
    folder = folder / expected
    try:
        folder.mkdir(parents=True, exist_ok=True)
        builder = keypoint_archive_dataset_builder.Builder(
            runs=list(_runs(training)), data_dir=str(folder), file_format="array_record"
        )
        # It would speak of downloads, of which there are none.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare()
    except (OSError, RuntimeError) as error:  # the latter from the record writer
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise LfmError(
            f"cannot prepare the training set in {folder} ({reason}): check space and "
            "rights there."
        ) from error
    try:
        source = builder.as_data_source(split="train")
        stored = _from_runs(training.skeletons, source, training.views)
        whole = fingerprint(stored) == expected
    except Exception:  # whatever the record reader makes of a damaged file
        whole = False
    if not whole:
        raise LfmError(f"the training set in {folder} is damaged: delete that folder.")
    return stored


def fingerprint(training: TrainingData) -> str:
    """Tells training sets apart by all that is in them."""
    digest = hashlib.sha256()
    for skeleton, observation, sequence in zip(
        training.skeletons, training.observations, training.sequences, strict=True
    ):
        arrays = [*jax.tree.leaves(observation), sequence]
        header = [dataclasses.asdict(skeleton), [a.shape for a in arrays]]
        digest.update(json.dumps(header).encode())
        for array in arrays:
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def _runs(training: TrainingData) -> Iterator[dict[str, np.ndarray]]:
    """Runs of frames of one category, in order: the examples of the training set."""
    for observation, sequence in zip(
        training.observations, training.sequences, strict=True
    ):
        for start in range(0, len(sequence), RUN_FRAMES):
            run = slice(start, start + RUN_FRAMES)
            yield {
                "category": np.asarray(observation.category[start]),
                "sequence": sequence[run],
                "points2d": observation.points2d[run],
                "observed": observation.observed[run],
                "annotated": observation.annotated[run],
            }


def _from_runs(skeletons, runs, count) -> TrainingData:
    by_category = [[] for _ in skeletons]
    for i in range(len(runs)):
        run = runs[i]
        by_category[int(run["category"])].append(run)

    def joined(key, category):
        return np.concatenate([run[key] for run in by_category[category]])

    observations, sequences = [], []
    for i in range(len(skeletons)):
        points2d, observed, annotated = (
            joined(key, i) for key in ("points2d", "observed", "annotated")
        )
        category = np.full(len(points2d), i, np.int32)
        observations.append(Observation(points2d, observed, annotated, category))
        sequences.append(joined("sequence", i))
    return TrainingData(skeletons, tuple(observations), tuple(sequences), count)
