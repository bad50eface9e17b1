"""The notebooks are what their scripts give, and the quickest of them runs.

That the others run is for benchmarks/run_colabs.py to say: they take minutes.
"""

import ast
import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
QUICK = "inside_the_model"  # and knows most of the inside
SPEC = importlib.util.spec_from_file_location(
    "run_colabs", ROOT / "benchmarks/run_colabs.py"
)
run_colabs = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(run_colabs)
SCRIPTS = sorted((ROOT / "colabs").glob("*.py"))


def test_a_script_becomes_cells():
    script = (
        "# %% [markdown]\n# # Head\n#\n# text\n\n# %%\nif a:\n    # %pip install b\n"
    )
    assert run_colabs.cells(script) == [
        ("markdown", "# Head\n\ntext"),
        ("code", "if a:\n    %pip install b"),
    ]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_notebook_is_what_its_script_gives(script):
    text = script.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert text == run_colabs.notebook(script.read_text(encoding="utf-8"))
    assert run_colabs.is_paired(script)


def test_there_are_scripts_for_all_notebooks():
    notebooks = (ROOT / "colabs").glob("*.ipynb")
    assert {path.stem for path in notebooks} == {path.stem for path in SCRIPTS}


def test_another_cell_is_noticed(tmp_path):
    script = tmp_path / "one.py"
    script.write_text("# %%\nprint(1)\n")
    assert not run_colabs.is_paired(script)
    made = run_colabs.notebook(script.read_text())
    other = script.with_suffix(".ipynb")
    other.write_text(made)
    assert run_colabs.is_paired(script)
    other.write_text(made.replace("print(1)", "print(2)"))
    assert not run_colabs.is_paired(script)
    printed = json.loads(made)
    printed["cells"][0]["outputs"] = [{"output_type": "stream", "text": ["1"]}]
    other.write_text(json.dumps(printed))
    assert not run_colabs.is_paired(script)


@pytest.mark.parametrize(
    ("program", "limit", "said"),
    [
        ("raise ValueError('no')", 60.0, "ValueError: no"),
        ("import time; time.sleep(60)", 1.0, "longer than 1 s"),
    ],
)
def test_what_goes_wrong_is_said(tmp_path, program, limit, said):
    script = tmp_path / "one.py"
    script.write_text(program)
    assert said in run_colabs.run(script, limit)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_only_public_names_are_used(script):
    used = []
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            used.append(node.attr)
        elif isinstance(node, ast.ImportFrom):
            used += [*node.module.split("."), *(alias.name for alias in node.names)]
    assert used and not [name for name in used if name.startswith("_")]


def test_the_quickest_runs():
    done = subprocess.run(
        [sys.executable, "benchmarks/run_colabs.py", QUICK],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
