"""Runs a sweep through XManager, every run a job of its own on Vertex AI.

    xmanager launch launch/xm_launch.py -- configs/sweeps/injection.py \
        --out=/gcs/BUCKET/sweeps --accelerator=a100 --config.data.dir=/gcs/BUCKET/data

Needs `pip install xmanager` and its prerequisites. Vertex mounts buckets below /gcs. A
job that is started again goes on where its work directory stands; one that finished
trains nothing. --dry-run prints the commands, as launch/sweep.py does.
"""

import argparse
import pathlib
import shlex
import sys

from lfm_jax.errors import LfmError

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import sweep  # noqa: E402  (beside this file)

IMAGE = "python:3.12-slim"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweep", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--accelerator", default="a100", help="of xm.JobRequirements")
    parser.add_argument("--count", type=int, default=1, help="accelerators of a job")
    parser.add_argument("--dry-run", action="store_true", help="print the commands")
    given, common = parser.parse_known_args(arguments)
    runs = sweep.expand(given.sweep, common, given.out)
    if given.dry_run:
        for run in runs:
            print(shlex.join(["python", *run.command[1:]]))
    else:
        launch(given.sweep.stem, runs, {given.accelerator: given.count})


def launch(title: str, runs: list[sweep.Run], requirements: dict[str, int]) -> None:
    """Builds one image and adds a job for every run."""
    try:
        from xmanager import xm, xm_local
    except ImportError as error:
        raise LfmError("XManager is missing: pip install xmanager.") from error

    executor = xm_local.Vertex(requirements=xm.JobRequirements(**requirements))
    spec = xm.PythonContainer(
        path=str(pathlib.Path(__file__).parents[1]),
        base_image=IMAGE,
        entrypoint=xm.ModuleName("lfm_jax.main"),
    )
    with xm_local.create_experiment(experiment_title=title) as experiment:
        package = xm.Packageable(executable_spec=spec, executor_spec=executor.Spec())
        [executable] = experiment.package([package])
        for run in runs:
            flags = [*run.arguments, f"--workdir={run.workdir}"]
            experiment.add(xm.Job(executable, executor, args=flags))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except LfmError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
