"""What a run is, as frozen dataclasses; values live in configs/.

A `ConfigDict` at the door (command-line overrides, misspelt keys caught), these
records inside: `from_config_dict` is the only bridge. A field exists exactly once.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which keypoints.

    Attributes:
        dir: folder of keypoint archives (docs/data.md); empty means the embedded zoo.
        only: comma-separated category names to keep; empty means all.
        camera: family of the cameras that make 2D from 3D: orthographic, static,
            orbit, upright, perspective or real.
        view_seed: seed of those cameras; not the training seed, so that every run
            sees the same single view of each frame.
    """

    dir: str = ""
    only: str = ""
    camera: str = "orthographic"
    view_seed: int = 0


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network.

    Attributes:
        width: features per token.
        layers: transformer blocks.
        heads: attention heads.
        encoding: correspondence encoding: rff, sinusoid, laplacian or learned.
        injection: where it enters: none, input, first_last, every_2, every.
        inject_values: also add it to the values (the published figure; the text has
            queries and keys only).
        sigma: bandwidth of the rff encoding.
        bases: deformation bases per category in the factorized start.
    """

    width: int = 96
    layers: int = 4
    heads: int = 4
    encoding: str = "rff"
    injection: str = "every"
    inject_values: bool = False
    sigma: float = 2.5
    bases: int = 0


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """L = L_2d + view_weight * L_view.

    Attributes:
        view_weight: lambda of the view-consistency term.
        hide: largest share of observed points hidden from the network in training.
    """

    view_weight: float = 0.3
    hide: float = 0.1


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

    learning_rate: float = 1e-3
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
        log_every, validate_every, checkpoint_every: in steps.
    """

    steps: int = 2000
    per_category: int = 3
    log_every: int = 20
    validate_every: int = 500
    checkpoint_every: int = 500


@dataclasses.dataclass(frozen=True)
class Config:
    """One run."""

    seed: int = 0
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
