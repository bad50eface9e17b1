"""Runs the notebooks of colabs/ as scripts, and compares each with its .py.

    python benchmarks/run_colabs.py [NAME ...] [--limit=180] [--write]

The .py in jupytext's percent format is what is written by hand; its .ipynb, without
outputs, is made from it by --write, which runs nothing. A notebook runs in a process
and a folder of its own. Exit status 1 says that one failed, took longer than --limit
seconds, or that an .ipynb is not what its .py gives.
"""

import argparse
import json
import os
import pathlib
import re
import resource
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[1]
COLABS = ROOT / "colabs"
MARK = re.compile(r"# %%( \[markdown\])?")
# A script cannot hold what only a notebook understands, so there it is a comment.
MAGIC = re.compile(r"^(\s*)# (%[a-z])", re.MULTILINE)
METADATA = {
    "jupytext": {"formats": "ipynb,py:percent"},
    "kernelspec": {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    },
    "language_info": {"name": "python"},
}


def cells(script: str) -> list[tuple[str, str]]:
    """The cells of a script in percent format: their types and sources."""
    found = []
    for line in script.splitlines():
        mark = MARK.fullmatch(line)
        if mark:
            found.append(("markdown" if mark[1] else "code", []))
        elif found:
            found[-1][1].append(line)
    return [(kind, _source(kind, "\n".join(lines))) for kind, lines in found]


def _source(kind: str, text: str) -> str:
    if kind == "markdown":
        text = re.sub("^# ?", "", text, flags=re.MULTILINE)
    else:
        text = MAGIC.sub(r"\1\2", text)
    return text.strip("\n")


def notebook(script: str) -> str:
    """The .ipynb of a script, without outputs."""
    made = []
    for number, (kind, source) in enumerate(cells(script)):
        cell = {"cell_type": kind, "id": f"cell-{number:02d}", "metadata": {}}
        if kind == "code":
            cell |= {"execution_count": None, "outputs": []}
        made.append(cell | {"source": source.splitlines(keepends=True)})
    whole = {"cells": made, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def is_paired(path: pathlib.Path) -> bool:
    """Whether the .ipynb beside a script has its cells, and no outputs."""
    other = path.with_suffix(".ipynb")
    if not other.exists():
        return False
    held = json.loads(other.read_text(encoding="utf-8"))["cells"]
    sources = [(cell["cell_type"], "".join(cell["source"])) for cell in held]
    empty = not any(cell.get("outputs") for cell in held)
    return empty and sources == cells(path.read_text(encoding="utf-8"))


def run(path: pathlib.Path, limit: float) -> str:
    """Runs a script; what went wrong, which is nothing if all went well."""
    places = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, places))}
    with tempfile.TemporaryDirectory() as folder:
        # Its own temporary files go there too, and away with it.
        env |= {"TMPDIR": folder}
        try:
            done = subprocess.run(
                [sys.executable, str(path)],
                cwd=folder,
                env=env,
                capture_output=True,
                text=True,
                timeout=limit,
            )
        except subprocess.TimeoutExpired:
            return f"took longer than {limit:g} s"
    print(done.stdout, end="")
    return done.stderr if done.returncode else ""


def chosen(names: list[str]) -> list[pathlib.Path]:
    """The scripts of these names, or all."""
    paths = {path.stem: path for path in sorted(COLABS.glob("*.py"))}
    unknown = sorted(set(names) - set(paths))
    if unknown:
        sys.exit(f"There is no notebook {unknown[0]!r}; known: {', '.join(paths)}.")
    return [paths[name] for name in names or paths]


def _processor() -> float:
    """Processor seconds of all processes that were run and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", metavar="NAME", nargs="*")
    parser.add_argument("--limit", type=float, default=180.0, help="seconds for each")
    parser.add_argument("--write", action="store_true", help="make the .ipynb")
    given = parser.parse_args(arguments)
    lines = []
    for path in chosen(given.names):
        if given.write:
            text = notebook(path.read_text(encoding="utf-8"))
            path.with_suffix(".ipynb").write_text(text, encoding="utf-8")
            continue
        began, used = time.perf_counter(), _processor()
        wrong = run(path, given.limit)
        seconds, used = time.perf_counter() - began, _processor() - used
        if not is_paired(path):
            wrong += f"{path.stem}.ipynb is not what {path.name} gives: use --write"
        lines.append((path.stem, seconds, used, wrong))
    for name, seconds, used, wrong in lines:
        print(f"{name:20} {seconds:6.1f} s, {used:.1f} s of processor time {wrong}")
    return int(any(wrong for *_, wrong in lines))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
