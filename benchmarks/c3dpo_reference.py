"""Our C3DPO beside its authors' code: the same frames, batches, updates and measures.

    python benchmarks/c3dpo_reference.py DIR CHECKOUT --python=TORCH_PYTHON

CHECKOUT is a copy of github.com/facebookresearch/c3dpo_nrsfm with the few patches that
docs/results.md lists; `c3dpo_authors.py` runs it under TORCH_PYTHON. One network for
each category, as theirs. Both codes get the same normalised 2D of the training frames,
one view of each, the same frames in each batch, width, blocks, bases, turns in the
plane and in 3D, and stochastic gradient descent as published (momentum 0.9, decay 5e-4,
the rate to a tenth after six and eight ninths). What is lifted is judged by

    canonical   ne of the canonical shape
    fitted      ne of the observed xy with the depth of that shape in the pose that fits
    predicted   the same in the pose that the network predicts: their own lifting
    mpjpe best  C3DPO's measure of that, in the units of the source: nothing is aligned
                but the mean depth, and each frame has the better sign of depth

In the others one sign is chosen on validation. Prints a line a run, then the means of
both, their difference, and what may be put down to chance: the larger of 5 % and two
standard errors of the paired difference.

With --norm=layer their networks have layer norm, as ours do, in place of batch norm.
Their trained weights are then read into our network too, and the largest difference of
a coordinate is printed.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lfm_jax import metrics, models, tasks
from lfm_jax.config import DataConfig, ModelConfig, ObjectiveConfig
from lfm_jax.data.dataset import open_dataset
from lfm_jax.data.mixture import frame_of, training_batches
from lfm_jax.train.step import init_state, make_train_step

AUTHORS = pathlib.Path(__file__).with_name("c3dpo_authors.py")
MEASURES = ("canonical", "fitted", "predicted", "mpjpe best")
MOMENTUM, DECAY = 0.9, 5e-4


def open_category(folder: str, name: str):
    """Its data, of one category alone."""
    with tempfile.TemporaryDirectory() as workdir:
        return open_dataset(DataConfig(dir=folder, only=name), workdir)


def held_out(dataset):
    """Validation frames and then test frames, and how many are validation."""
    parts = dataset.evaluation.validation[0], dataset.evaluation.test[0]
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    return joined, len(parts[0].points3d)


def theirs(dataset, settings: dict, args) -> dict:
    """Canonical and lifted shapes of held out frames, and seconds, of their code."""
    training, labelled = dataset.training, held_out(dataset)[0]
    place = frame_of(training, args.batch, settings["seed"])
    steps, batch = range(args.steps), range(args.batch)
    order = np.array([[place(step, one)[1] for one in batch] for step in steps])
    seen = [training.observations[0], labelled.observation]
    points, others = (np.asarray(tasks.normalise(one)[0].points2d) for one in seen)
    with tempfile.TemporaryDirectory() as folder:
        source, target = (pathlib.Path(folder) / name for name in ("in.npz", "out.npz"))
        text = json.dumps(settings)
        np.savez(source, settings=text, points2d=points, held_out=others, order=order)
        command = [args.python, str(AUTHORS), args.checkout, str(source), str(target)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        with np.load(target, allow_pickle=False) as file:
            return dict(file)


def build(dataset, settings: dict):
    """Our network."""
    sizes = {name: settings[name] for name in ("width", "layers", "code")}
    config = ModelConfig(name="c3dpo", bases="", **sizes)
    return models.build(config, dataset.training.skeletons)


def ours(dataset, settings: dict, args) -> dict:
    """The same of lfm_jax, through its one training step."""
    training = dataset.training
    model = build(dataset, settings)
    task = tasks.build(ObjectiveConfig(name="c3dpo", hide=0.0), "c3dpo")
    falls = {round(args.steps * share): 0.1 for share in (6 / 9, 8 / 9)}
    rate = optax.piecewise_constant_schedule(settings["rate"], falls)
    tx = optax.chain(optax.add_decayed_weights(DECAY), optax.sgd(rate, MOMENTUM))
    step = jax.jit(make_train_step(model, task, tx, average=0.0), donate_argnums=0)
    batches = training_batches(training, per_category=args.batch, seed=settings["seed"])
    state = init_state(model, tx, jax.random.key(settings["seed"]), 1)
    losses = []
    begin = time.perf_counter()
    for _, batch in zip(range(args.steps), batches, strict=False):
        state, scalars = step(state, batch)
        losses.append(scalars["loss"])
    losses = np.mean(np.reshape(jax.device_get(losses), (9, -1)), axis=1)
    seconds = time.perf_counter() - begin
    found = lift(model, state.params, dataset)
    return found | {"seconds": seconds, "losses": losses}


def lift(model, params, dataset) -> dict[str, np.ndarray]:
    """Held out frames by our network, in the pose that it predicts."""

    @jax.jit
    def lift(params, normal):
        shape, turn = model.apply(params, normal, method="factorize")
        posed = jnp.einsum("bij,bnj->bni", turn, shape)
        lifted = tasks.complete(normal.points2d, posed, normal.observed)
        return {"canonical": shape, "lifted": lifted}

    normal = tasks.normalise(held_out(dataset)[0].observation)[0]
    return jax.tree.map(np.asarray, lift(params, normal))


def as_ours(weights: dict[str, np.ndarray], settings: dict) -> dict:
    """Their weights, normalised over features, as our parameters."""

    def linear(name):
        kernel = weights[f"weight {name}.weight"][..., 0, 0].T
        return {"kernel": kernel, "bias": weights[f"weight {name}.bias"]}

    def norm(name):
        scale, bias = (weights[f"weight {name}.{part}"] for part in ("weight", "bias"))
        return {"scale": scale, "bias": bias}

    def by_keypoint(kernel):  # their rows: all x, then all y, then all z (or seen)
        return kernel.reshape(3, -1, *kernel.shape[1:])

    def trunk(name):
        first = linear(f"{name}.0.conv1")
        params = {"read": by_keypoint(first["kernel"]).swapaxes(0, 1)[None]}
        params["bias"] = {"embedding": first["bias"][None]}
        params["norm"] = norm(f"{name}.0.bn1")
        for layer, part in np.ndindex(settings["layers"], 3):
            theirs = f"{name}.{layer + 1}.{{}}{part + 1}"
            params[f"dense_{layer}_{part}"] = linear(theirs.format("conv"))
            params[f"norm_{layer}_{part}"] = norm(theirs.format("bn"))
        return params

    basis = linear("shape_layer")
    return {
        "phi": trunk("phi"),
        "psi": trunk("psi"),
        "phi_code": linear("alpha_layer"),
        "psi_code": linear("alpha_layer_psi"),
        "turn": linear("rot_layer"),
        "basis": {
            "write": by_keypoint(basis["kernel"].T).transpose(1, 2, 0)[None],
            "mean": by_keypoint(basis["bias"]).T[None],
        },
    }


def same_weights(found: dict, dataset, settings: dict) -> float:
    """The largest difference of a coordinate that their weights make in our network.

    In RMS radii of the image, after shapes, which ours centres, are centred.
    """
    again = lift(build(dataset, settings), as_ours(found, settings), dataset)
    centred = lambda x: x - x.mean(axis=1, keepdims=True)
    return max(
        np.abs(centred(again[name]) - centred(found[name])).max()
        for name in ("canonical", "lifted")
    )


def judge(found: dict, dataset) -> dict[str, float]:
    """The measures of the header, on test frames."""
    labelled, count = held_out(dataset)
    seen, true, mask = labelled.observation, labelled.points3d, labelled.evaluated
    normal, size, _ = tasks.normalise(seen)
    one = jnp.ones(len(true))
    fitted = tasks.lift(lambda *_: jnp.asarray(found["canonical"]), None, seen, one)
    shapes = {
        "canonical": jnp.asarray(found["canonical"]),
        "fitted": fitted.lifted,
        "predicted": jnp.asarray(found["lifted"]),
    }
    results = {}
    for name, shape in shapes.items():
        both = [metrics.ne(x, true, mask) for x in (shape, metrics.mirror_depth(shape))]
        sign = int(jnp.mean(both[0][:count]) > jnp.mean(both[1][:count]))
        results[name] = float(jnp.mean(both[sign][count:]))
    lifted = shapes["predicted"] * np.asarray(size)[:, None, None]
    apart = [
        np.mean(_distances(x, true, mask), axis=1)[count:]
        for x in (lifted, metrics.mirror_depth(lifted))
    ]
    results["mpjpe best"] = float(np.mean(np.minimum(*apart)))
    return results


def _distances(shape, true, mask):
    """Of points whose mean image, or mean depth, is taken out of both."""
    between = shape - true
    return jnp.linalg.norm(between - jnp.mean(between, axis=1, keepdims=True), axis=-1)


def arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dir", help="folder of keypoint archives")
    parser.add_argument("checkout", help="their code, patched")
    parser.add_argument("--python", default=sys.executable, help="one with PyTorch")
    parser.add_argument("--categories", default="nsp__cheetah,sim__shadow_hand")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=450, help="a multiple of nine")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--code", type=int, default=10)
    parser.add_argument("--rate", type=float, default=0.03)
    parser.add_argument("--norm", default="batch", help="theirs: batch or layer")
    return parser.parse_args(argv)


def settings_of(args, seed: int) -> dict:
    """What both codes are told."""
    names = "width", "layers", "code", "rate", "norm"
    return {name: getattr(args, name) for name in names} | {"seed": seed}


def pair(name: str, dataset, args, seed: int) -> list[list[float]]:
    """Measures of theirs and of ours, printed as they come."""
    settings, measures = settings_of(args, seed), []
    for code, run in (("theirs", theirs), ("ours", ours)):
        found = run(dataset, settings, args)
        scores = judge(found, dataset)
        measures.append([scores[m] for m in MEASURES])
        text = ", ".join(f"{m} {scores[m]:.2f}" for m in MEASURES)
        ends = " ".join(f"{x:.3f}" for x in found["losses"][[0, 5, 8]])
        print(f"{name} {seed} {code}: {text}; loss {ends}; {found['seconds']:.0f} s")
        if code == "theirs" and args.norm == "layer":
            print(f"same weights {same_weights(found, dataset, settings):.1e} apart")
        sys.stdout.flush()
    return measures


def main() -> None:
    args = arguments()
    print(*sys.argv, jax.devices()[0].device_kind, flush=True)
    for name in args.categories.split(","):
        dataset = open_category(args.dir, name)
        runs = [pair(name, dataset, args, seed) for seed in range(args.seeds)]
        report(name, *np.swapaxes(runs, 0, 1))


def report(name: str, theirs: np.ndarray, ours: np.ndarray) -> None:
    """A row of Markdown for each measure; arrays are of seeds and measures."""
    apart = ours - theirs
    error = apart.std(axis=0, ddof=1) / len(apart) ** 0.5 if len(apart) > 1 else 0.0
    for measure, *row in zip(
        MEASURES,
        theirs.mean(axis=0),
        ours.mean(axis=0),
        apart.mean(axis=0),
        np.maximum(0.05 * theirs.mean(axis=0), 2.0 * error),
        strict=True,
    ):
        cells = " | ".join(f"{value:.2f}" for value in row)
        print(f"| {name} | {measure} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
