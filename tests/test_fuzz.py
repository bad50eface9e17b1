"""Damage and traps are refused in a sentence; benchmarks/fuzz.py looks for more."""

import io
import json
import pathlib
import pickle
import re
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest

from lfm_jax.data.archive import read_category
from lfm_jax.data.readers import apart, read_keypoints
from lfm_jax.errors import LfmError
from lfm_jax.writers import read_lifted

ROOT = pathlib.Path(__file__).parents[1]
INPUTS = 2000
POINTS = np.ones((3, 4, 2), np.float32)
READERS = {"keypoints": read_keypoints, "archive": read_category, "lifted": read_lifted}


def test_damaged_inputs_are_read_or_refused(tmp_path):
    """Thirteen kinds of files and arguments; a valid one of each must be read."""
    script = [sys.executable, "benchmarks/fuzz.py", "--plain", f"--inputs={INPUTS}"]
    done = subprocess.run(
        [*script, f"--out={tmp_path}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts = re.findall(r"(\d+) inputs", done.stdout)
    assert sum(map(int, counts)) >= INPUTS and len(counts) == 13


def refused(path, phrase, read=read_keypoints):
    with pytest.raises(LfmError, match=phrase) as error:
        read(path)
    assert str(error.value).isprintable()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("name", ["../up.npy", "/etc/x.npy", "a/../../b", r"C:\x.npy"])
def test_members_that_lie_outside_are_refused(tmp_path, read, name):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("points2d.npy", npy(POINTS))
        file.writestr(name, npy(POINTS))
    refused(tmp_path / "a.npz", "outside", read)


@pytest.fixture(scope="module")
def bomb(tmp_path_factory):
    path = tmp_path_factory.mktemp("bomb") / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        with file.open("points2d.npy", "w", force_zip64=True) as member:
            for _ in range(300):
                member.write(bytes(1 << 20))
    return path


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_small_files_do_not_unfold_to_large_ones(bomb, read):
    assert bomb.stat().st_size < 3e6
    refused(bomb, "unfold", read)


def test_arrays_of_nothing_are_refused(tmp_path):
    """Strings of no letters take no bytes, and a list of them all of the memory."""
    header = b"{'descr': '<U0', 'fortran_order': False, 'shape': (10000000000,), }"
    header = header.ljust(117) + b"\n"
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("points2d.npy", npy(POINTS))
        file.writestr("names.npy", b"\x93NUMPY\1\0" + b"\x76\0" + header)
    refused(tmp_path / "a.npz", "names is not a plain array")


@pytest.mark.parametrize("letter", [0x110000, 0xD800])
@pytest.mark.parametrize("order", "<>")
def test_letters_that_do_not_exist_are_refused(tmp_path, letter, order):
    names = np.array([97, 98, 99, letter], f"{order}u4").view(f"{order}U1")
    np.savez(tmp_path / "a.npz", points2d=POINTS, names=names)
    refused(tmp_path / "a.npz", "names is not a plain array")
    rows = [{"id": 1, "keypoints": ["a", "\ud800"]}]
    seen = [{"category_id": 1, "keypoints": [1, 1, 2] * 2}]
    (tmp_path / "a.json").write_text(
        json.dumps({"categories": rows, "annotations": seen})
    )
    refused(tmp_path / "a.json", "no text")


def test_members_that_are_no_arrays_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("points2d.npy", npy(POINTS))
        file.writestr("names", b"four")
    refused(tmp_path / "a.npz", "names is not a plain array")


def test_datasets_that_were_never_written_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        file.create_dataset("data", (1 << 30, 4), "f8", chunks=(1 << 16, 4))
    assert (tmp_path / "a.nwb").stat().st_size < 1e6
    refused(tmp_path / "a.nwb", "unfold")


def test_a_library_that_works_for_ever_is_ended(tmp_path, monkeypatch):
    program = (
        "import pathlib, sys; from lfm_jax.data.readers import apart; apart._WORK = 0\n"
        "apart._limit(pathlib.Path(sys.argv[1]))\n"
        "while True: pass"
    )
    monkeypatch.setattr(apart, "_PROGRAM", program)
    (tmp_path / "a.nwb").touch()
    with pytest.raises(LfmError, match="HDF5 library fails") as error:
        read_keypoints(tmp_path / "a.nwb")
    # not by the clock, which goes on while others work
    assert isinstance(error.value.__cause__, subprocess.CalledProcessError)


def test_one_frame_of_thousands_does_not_make_as_many_individuals(tmp_path):
    crowd = '[{"x": 9, "y": 9}],' * 3000
    (tmp_path / "a.json").write_text(f"[[{crowd[:-1]}]{',[]' * 50_000}]")
    refused(tmp_path / "a.json", "fewer individuals")


def test_what_a_file_says_does_not_steer_the_terminal(tmp_path):
    (tmp_path / "a.csv").write_text('"nose_x\x1b[2J\n",b\n1,2\n')
    refused(tmp_path / "a.csv", "nose_x")


# ------------------------------------------------------------------ pickles

# What runs the code of a file, by the name that it is called by.
UNPICKLES = re.compile(
    r"\b(pickle|dill|cloudpickle|joblib|marshal|shelve)\b\.|read_pickle|torch\.load"
    r"|read_hdf|allow_pickle=True|yaml\.(unsafe_)?load\b|\beval\(|\bexec\("
)


def test_nothing_in_the_package_unpickles():
    found = [
        f"{path.name}: {line.strip()}"
        for path in sorted((ROOT / "lfm_jax").rglob("*.py"))
        for line in path.read_text().splitlines()
        if UNPICKLES.search(line.split("#")[0])
    ]
    assert not found


class Trap:
    """Unpickling it leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("name", ["a.npz", "a.json", "a.csv", "a.h5", "a.slp"])
def test_a_pickle_of_any_name_is_never_run(tmp_path, name):
    """Those inside of files: test_formats, test_readers and test_data_archive."""
    path, sprung = tmp_path / name, tmp_path / "sprung"
    path.write_bytes(pickle.dumps(Trap(sprung), protocol=0))
    refused(path, "nose_x" if name == "a.csv" else "again")
    assert not sprung.exists()
