"""What `lfm train` makes of few frames, and what other categories add to it.

    python benchmarks/own_category.py DIR CATEGORY,CATEGORY,... runs/own --camera=real

For every category of the folder DIR and number of training frames (evenly spaced; a
seventh as many for validation, by which starts are chosen and training ends), on the
same at most `TEST` test frames:

    start       factorized from these frames: what `lfm train` begins with
    lfm train   its recipe, which begins at the weights that come with the package
    random      the same, begun at random weights
    scratch     no start either: the network must find everything itself
    together    the recipe, with the zoo in every step besides

None has seen a label of the category. Runs that have ended are not made again.
"""

import argparse
import dataclasses
import pathlib
import shutil
from collections.abc import Sequence

from lfm_jax import own, workdir
from lfm_jax.checkpoint import Checkpoints
from lfm_jax.config import Config
from lfm_jax.data import archive
from lfm_jax.data.dataset import open_dataset
from lfm_jax.train import loop

TEST = 300
TOGETHER = {"steps": 150, "per_category": 3, "patience": 0}
ROWS = {
    "flat": "ne_flat",
    "rigid": "ne_rigid_lifted",
    "mean shape*": "ne_mean_shape_lifted",
    "start": "ne_start_lifted",
}


def recipes(config: Config) -> dict[str, Config]:
    """The runs of one category and number of frames."""
    replace = dataclasses.replace
    begun = replace(config.train, weights="")
    alone = replace(config.model, bases="", inject_values=True)
    faster = replace(config.optim, learning_rate=1e-3)
    zoo = replace(config.data, zoo=True)
    return {
        "lfm train": config,
        "random": replace(config, train=begun),
        "scratch": replace(config, train=begun, model=alone, optim=faster),
        "together": replace(config, data=zoo, train=replace(config.train, **TOGETHER)),
    }


def learn(name: str, config: Config, folder: pathlib.Path) -> dict[str, float]:
    """Trains, or reads what was trained; the entry of the first category."""
    if not (folder / "eval.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        judged = dataclasses.replace(config.data, held_out=TEST, zoo=False)
        test = open_dataset(judged, str(folder)).evaluation.test
        same = folder.with_name(folder.name.replace("random", "lfm-train"))
        if (same / workdir.FACTORIZATION).exists() and same != folder:
            shutil.copy(same / workdir.FACTORIZATION, folder)
        with workdir.claim(folder, config):
            built = loop.build(config, folder)
        with Checkpoints(folder / "checkpoints") as checkpoints:
            standing = loop.restore(built, checkpoints)
            standing = loop.run(built, standing, checkpoints)
            state = loop.settle(built, standing, checkpoints)
        parts = built.dataset.evaluation
        parts = dataclasses.replace(parts, test=(*test, *parts.test[1:]))
        dataset = dataclasses.replace(built.dataset, evaluation=parts)
        loop.finish(dataclasses.replace(built, dataset=dataset), state)
    numbers = workdir.read_json(folder / "eval.json")
    return numbers["categories"][config.data.only] | {"step": numbers["step"]}


def measure(
    given: argparse.Namespace, category: str, frames: Sequence[str]
) -> dict[str, list[str]]:
    """Rows of the table of one category."""
    folder, camera, out = given.dir, given.camera, given.out
    [read] = archive.read_folder(folder, category)
    table: dict[str, list[str]] = {}
    for wanted in frames:
        config = own.own_config(pathlib.Path("unused"), read)
        data = dataclasses.replace(
            config.data, dir=folder, only=category, camera=camera
        )
        every = open_dataset(data, str(out)).split["categories"][category]
        most = len(every["train"])
        count = most if wanted == "all" else min(int(wanted), most)
        data = dataclasses.replace(data, share=count / most, held_out=count // 7)
        shapes = min(own.SHAPES, -(-count // 4))
        train = dataclasses.replace(config.train, per_category=shapes)
        config = dataclasses.replace(config, data=data, train=train)
        for name, recipe in recipes(config).items():
            if name not in given.recipes.split(","):
                continue
            place = out / category / f"{count}-{name.replace(' ', '-')}"
            entry = learn(name, recipe, place)
            if name == "lfm train":
                for row, key in ROWS.items():
                    table.setdefault(row, []).append(f"{entry[key]:.1f}")
            cell = f"{entry['ne_lifted']:.1f} ({entry['step']})"
            table.setdefault(name, []).append(cell)
        table.setdefault("frames", []).append(str(count))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dir")
    parser.add_argument("categories")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--camera", default="orthographic")
    parser.add_argument("--frames", default="80,300,all")
    parser.add_argument("--recipes", default="lfm train,random,scratch,together")
    given = parser.parse_args()
    for category in given.categories.split(","):
        table = measure(given, category, given.frames.split(","))
        frames = table.pop("frames")
        print(f"| {category}, {given.camera} | " + " | ".join(frames) + " |")
        print("|---" * (1 + len(frames)) + "|")
        for name, cells in table.items():
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
