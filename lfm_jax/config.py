"""What a run is, as frozen dataclasses; values live in configs/.

A `ConfigDict` at the door (command-line overrides, misspelt keys caught), these
records inside: `from_config_dict` is the only bridge. A field exists exactly once.
"""

import dataclasses
import difflib
import math
import reprlib
from collections.abc import Iterable, Mapping

import ml_collections

from lfm_jax.errors import LfmError

Value = bool | int | float | str
SHARES = ("data.occlusion", "objective.hide", "optim.warmup", "optim.average")
FROM_ZERO = (
    *("seed", "data.held_out", "data.view_seed", "model.neighbours"),
    "train.patience",
)
POSITIVE = ("data.share", "optim.learning_rate", "optim.clip", "model.sigma")
_SHORT = reprlib.Repr()
_SHORT.maxlist, _SHORT.maxstring = 4, 200  # split.json has lists of thousands


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which keypoints.

    Attributes:
        dir: folder of keypoint archives (docs/data.md); empty means the embedded zoo.
        zoo: with a folder, the whole zoo besides.
        only: comma-separated category names to keep, of the folder if there is one;
            empty means all.
        share: of the training frames of each category, evenly spaced; of films in
            stretches of up to 48, which stay as they are.
        held_out: at most so many validation and test frames of each category, spaced
            likewise: sweeps over many runs are judged sooner; 0 for all.
        camera: family of the cameras that make 2D from 3D: orthographic, static,
            orbit, upright, perspective or real.
        views: real cameras of every frame; with more than one, the first so many are
            used together, for networks that fuse them.
        transductive: train, validation and test are all frames: what a reconstruction
            needs, and what the literature of NRSfM reports.
        view_seed: seed of those cameras; not the training seed, so that every run
            sees the same single view of each frame.
        occlusion: share of the points without 2D, in all parts, each hidden for ten
            frames of a clip at a time; 3D truth remains.
    """

    dir: str = ""
    zoo: bool = False
    only: str = ""
    share: float = 1.0
    held_out: int = 0
    camera: str = "orthographic"
    views: int = 1
    transductive: bool = False
    view_seed: int = 0
    occlusion: float = 0.0


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network.

    Attributes:
        name: which: lfm2d, lfm3d, lfm3d_time, mlp, deep_nrsfm, c3dpo, paul or mv_nrsfm.
        width: features per token; of deep_nrsfm and mv_nrsfm, atoms of the first
            dictionary.
        layers: transformer or residual blocks; of deep_nrsfm and mv_nrsfm,
            dictionaries.
        heads: attention heads.
        encoding: correspondence encoding of lfm2d: rff, sinusoid, laplacian or learned;
            token encoding of lfm3d and lfm3d_time: rff or learned.
        injection: where that of lfm2d enters: none, input, first_last, every, or
            every_2, every_3, ... for every so many blocks.
        inject_values: also add it to the values (the published figure; the text has
            queries and keys only).
        sigma: bandwidth of the rff encoding.
        gate: let the image into lfm2d without a start through a factor that begins at
            zero; False as published.
        code: numbers between encoder and decoder of mlp and paul; of c3dpo the shapes
            in its basis, of deep_nrsfm and mv_nrsfm the atoms of the last dictionary.
        attention: of lfm3d and lfm3d_time: local (on the skeleton), global, or hybrid
            for both.
        alone: every category has a network of its own, and all are trained side by
            side; without a start.
        window: frames that lfm3d_time looks back on in each layer.
        bases: deformation bases of the factorized models that lfm2d starts from,
            comma-separated, with two models for each number; empty for the published
            network, which must find everything itself, and for lfm3d.
        neighbours: lengths that stay, of every keypoint, by which the start's depths
            are corrected; 0 leaves them as they are.
        dtype: what blocks compute in: float32 or bfloat16; weights, the start and all
            geometry stay in float32.
        remat: compute the inside of blocks again for the gradient, not keep it: less
            memory, more time.
    """

    name: str = "lfm2d"
    width: int = 96
    layers: int = 4
    heads: int = 4
    encoding: str = "rff"
    injection: str = "every"
    inject_values: bool = False
    sigma: float = 2.5
    gate: bool = True
    code: int = 8
    attention: str = "hybrid"
    alone: bool = False
    window: int = 8
    bases: str = "2,5,9"
    neighbours: int = 4
    dtype: str = "float32"
    remat: bool = False


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """L = L_2d + view_weight * L_view.

    Attributes:
        name: lfm2d for the above, with any network; deep_nrsfm, c3dpo, paul or
            mv_nrsfm for the loss that was published with the network of that name.
        view_weight: lambda of the view-consistency term.
        hide: largest share of observed points hidden from the network in training.
        supervised: learn from 3D labels instead: 3D-LFM, or a yardstick of 2D-LFM.
        alignment: what brings a prediction onto its label, if supervised: pose (the
            camera that fits its 2D, for the yardstick), procrustes (rotation, scale and
            mirror image, for 3D-LFM), clip (each frame by itself, and what is lifted
            once for all frames of a clip, for 3D-LFM-Time), rotation (procrustes
            without the mirror image) or none.
        velocity_weight: of the error of motion from frame to frame, in alignment clip.
    """

    name: str = "lfm2d"
    view_weight: float = 0.3
    hide: float = 0.1
    supervised: bool = False
    alignment: str = "pose"
    velocity_weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """AdamW with warm-up and cosine decay.

    Attributes:
        learning_rate: peak rate.
        warmup: share of the steps in which the rate rises.
        weight_decay: decoupled decay, matrices only.
        clip: largest global gradient norm.
        average: decay of the moving average of the weights.
    """

    learning_rate: float = 5e-4
    warmup: float = 0.05
    weight_decay: float = 1e-4
    clip: float = 1.0
    average: float = 0.998


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long and how often.

    Attributes:
        steps: updates.
        per_category: shapes of every category in a step (category-balanced).
        clip: of these so many at a time are consecutive frames, which what looks at
            time (model.window, objective.alignment clip) needs; 1 for frames in random
            order. Divides per_category.
        microbatches: equal parts of a step that are computed one after the other, for
            less memory; divides per_category / clip.
        weights: a work directory or release, or the name of one that comes with the
            package, whose weights training begins at; of a network of the same size, or
            lfm3d's for lfm3d_time. Empty for random ones.
        patience: end before `steps` when so many validations in a row gained less than
            a ten-thousandth on the best before them; 0 never.
        log_every, validate_every, checkpoint_every: in steps.
    """

    steps: int = 150
    per_category: int = 3
    clip: int = 1
    microbatches: int = 1
    weights: str = ""
    patience: int = 0
    log_every: int = 20
    validate_every: int = 100
    checkpoint_every: int = 100


@dataclasses.dataclass(frozen=True)
class Config:
    """One run.

    Attributes:
        seed: of everything random but the cameras.
        mesh: how the weights lie on several devices (sharding.py): data, the whole on
            every one, or fsdp, split over them. Neither changes what is learned.
    """

    seed: int = 0
    mesh: str = "data"
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()


# ----------------------------------------------------------------------------
# ConfigDict <-> records, and `file.py:preset,key=value`
# ----------------------------------------------------------------------------


def to_config_dict(config: Config) -> ml_collections.ConfigDict:
    """The records as a ConfigDict, ready for command-line overrides."""
    return ml_collections.ConfigDict(dataclasses.asdict(config))


def from_config_dict(values: ml_collections.ConfigDict) -> Config:
    """The ConfigDict as frozen records.

    Raises:
        LfmError: an unknown key, or a number out of its range.
    """
    config = _record(Config, values.to_dict(), "")
    for key in _leaves(values):
        _check_range(key, _get(values, key))
    return config


def _check_range(key: str, value: Value) -> None:
    """Counts are 1 or more but for `FROM_ZERO`, shares below 1, none is negative."""
    if isinstance(value, (bool, str)):
        return
    least = 0
    if isinstance(value, int) and key not in FROM_ZERO:
        least = 1
    most = 1.0 if key in SHARES else math.inf
    if key == "data.share" and value > 1.0:
        raise LfmError(f"{key} is {value}; give a number above 0 and up to 1.")
    if not least <= value < most or (key in POSITIVE and value == 0.0):
        below = f" and below {most:g}" if most < math.inf else ""
        more = "above 0" if key in POSITIVE else f"of {least} or more"
        raise LfmError(f"{key} is {value}; give a number {more}{below}.")


def parse_arg(
    arg: str | None,
    presets: Mapping[str, Mapping[str, Value]],
    method: Mapping[str, Value] | None = None,
) -> ml_collections.ConfigDict:
    """The config that `preset,key=value,...` names.

    Args:
        arg: what follows the colon in `--config=file.py:arg`; every part is optional.
        presets: per name, how it differs from the defaults, by dotted key.
        method: how the method itself does, before any preset.

    Raises:
        LfmError: an unknown preset or key, or a value of the wrong type.
    """
    values = to_config_dict(Config())
    for key, value in (method or {}).items():
        _set(values, key, value)
    for part in filter(None, (arg or "").split(",")):
        key, given, text = part.partition("=")
        if given:
            assign(values, key, text)
        elif part in presets:
            for key, value in presets[part].items():
                _set(values, key, value)
        else:
            known = suggest(part, presets)
            raise LfmError(
                f"There is no preset {part!r} in the config{known} (a value with "
                "commas goes into --config.key=value)."
            )
    return values


def assign(values: ml_collections.ConfigDict, key: str, text: str) -> None:
    """Sets a dotted key to what `text` says in the type of the key.

    Raises:
        LfmError: an unknown key, or a value of the wrong type.
    """
    _set(values, key, _parse(key, text, _get(values, key)))


def check_key(key: str) -> None:
    """Raises an `LfmError` unless a dotted key names a field of `Config`."""
    _get(to_config_dict(Config()), key)


def differences(old: Mapping, new: Mapping, prefix: str = "") -> list[str]:
    """One phrase per dotted key whose value is not the same in two nested dicts."""
    found = []
    for key in dict.fromkeys((*old, *new)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            was, now = _SHORT.repr(before), _SHORT.repr(after)
            found.append(f"{prefix}{key} was {was} and is now {now}")
    return found


def suggest(name: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` or the list of what there is, to end a sentence with."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}" if close else f"; known: {', '.join(known)}"


def _record(cls: type, values: Mapping, prefix: str):
    fields = {field.name: field.type for field in dataclasses.fields(cls)}
    for key in values:
        if key not in fields:
            known = suggest(key, fields)
            raise LfmError(f"The config has no key {prefix + key!r}{known}.")
    return cls(
        **{
            key: _record(fields[key], value, f"{prefix}{key}.")
            if dataclasses.is_dataclass(fields[key])
            else value
            for key, value in values.items()
        }
    )


def _get(values: ml_collections.ConfigDict, key: str) -> Value:
    """The value under a dotted key that must name a field, not a group of fields."""
    node = values
    for name in key.split("."):
        if not isinstance(node, ml_collections.ConfigDict) or name not in node:
            known = suggest(key, _leaves(values))
            raise LfmError(f"The config has no key {key!r}{known}.")
        node = node[name]
    if isinstance(node, ml_collections.ConfigDict):
        known = ", ".join(f"{key}.{name}" for name in node)
        raise LfmError(f"The config key {key!r} is a group of keys: {known}.")
    return node


def _set(values: ml_collections.ConfigDict, key: str, value: Value) -> None:
    _get(values, key)
    values.update_from_flattened_dict({key: value})


def _leaves(values: ml_collections.ConfigDict, prefix: str = "") -> list[str]:
    found = []
    for key, value in values.items():
        if isinstance(value, ml_collections.ConfigDict):
            found += _leaves(value, f"{prefix}{key}.")
        else:
            found.append(prefix + key)
    return found


def _parse(key: str, text: str, default: Value) -> Value:
    """The text in the type of the default; strict, so that "False" is not True."""
    if isinstance(default, str):
        return text
    if isinstance(default, bool):
        values = {"true": True, "false": False}
        if text.lower() in values:
            return values[text.lower()]
    else:
        try:
            return type(default)(text)
        except ValueError:
            pass
    kind = type(default).__name__
    raise LfmError(f"The config key {key!r} takes a {kind}, not {text!r}.")
