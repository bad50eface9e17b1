"""The house rules that a machine can check; import-linter holds the rest."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "lfm_jax"
TREES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for folder in ("lfm_jax", "configs", "benchmarks", "launch", "tests")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
SOURCES = {name: tree for name, tree in TREES.items() if name.startswith("lfm_jax/")}
CEILING = 60  # lines of a function
ROOM = 450  # lines of a file

# Each outside interface has one room; "/" ends a folder.
DOORS = {
    "flax": ("lfm_jax/models/",),
    "orbax": ("lfm_jax/checkpoint.py",),
    "grain": ("lfm_jax/data/", "lfm_jax/train/loop.py"),
    "tensorflow_datasets": ("lfm_jax/data/",),
    "plotly": ("lfm_jax/viz/",),
    "h5py": ("lfm_jax/data/readers/hdf5.py",),
    "sleap_io": ("lfm_jax/data/readers/sleap.py",),
    "ezc3d": ("lfm_jax/writers.py",),
    "pygltflib": ("lfm_jax/animation.py",),
    "rerun": ("lfm_jax/viz/recording.py",),
    "absl": ("lfm_jax/main.py",),
    "tqdm": ("lfm_jax/metrics_io.py",),
    "tensorflow": (),
    "torch": (),
    "pickle": (),
}


def functions(tree):
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(tree) if isinstance(node, kinds)]


def imported(tree):
    """Top-level names of everything a file imports, wherever it does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


def test_a_function_fits_a_screen():
    long = {
        f"{name}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for name, tree in TREES.items()
        for node in functions(tree)
        if node.end_lineno - node.lineno >= CEILING
    }
    assert not long


def test_a_file_fits_a_head():
    lines = {name: len((ROOT / name).read_text().splitlines()) for name in SOURCES}
    assert not {name: count for name, count in lines.items() if count > ROOM}


def test_no_room_without_a_subject():
    names = [path.stem for path in PACKAGE.rglob("*.py")]
    assert not {"utils", "util", "helpers", "common", "misc"} & set(names)


@pytest.mark.parametrize("library", DOORS)
def test_an_outside_interface_has_one_room(library):
    users = {name for name, tree in SOURCES.items() if library in imported(tree)}
    assert not {name for name in users if not name.startswith(DOORS[library] or " ")}


def test_every_door_is_used():
    used = {name for tree in SOURCES.values() for name in imported(tree)}
    assert {library for library, rooms in DOORS.items() if rooms} <= used


@pytest.mark.parametrize("name", ["make_train_step", "train_and_evaluate"])
def test_there_is_one_step_and_one_loop(name):
    places = [
        place
        for place, tree in TREES.items()
        for node in functions(tree)
        if node.name == name
    ]
    assert len(places) == 1, places


def test_every_module_says_what_it_is_for():
    silent = [
        name
        for name, tree in TREES.items()
        if not ast.get_docstring(tree) and tree.body  # an empty __init__.py is fine
    ]
    assert not silent


def test_arrays_are_never_unpickled():
    loads = [
        (name, node)
        for name, tree in SOURCES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "np.load"
    ]
    assert loads
    for name, node in loads:
        assert "allow_pickle=False" in ast.unparse(node), f"{name}:{node.lineno}"


def test_nothing_speaks_of_one_machine():
    # Spelt so that this file does not speak of one either.
    spoken = re.compile(r"(?<![\w.])/(work|root|home|Users)/|/tmp/\w")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.split("\n")
    found = []
    for name in filter(None, listed):
        path = ROOT / name
        if not path.is_file() or path.suffix in {".npz", ".png", ".gif"}:
            continue
        for number, line in enumerate(path.read_text(errors="ignore").split("\n"), 1):
            if spoken.search(line) and "spoken = " not in line:
                found.append(f"{name}:{number}: {line.strip()[:80]}")
    assert not found


def test_the_package_never_needs_tensorflow():
    names = sorted(
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in SOURCES
    )
    program = (
        "import sys, importlib\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
