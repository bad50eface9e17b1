"""How Sphinx makes the site: `sphinx-build -W docs site`, after installing `.[docs]`.

The pages are the Markdown of this folder; those below api/ are made from the package.
"""

import re

import lfm_jax

project = "lfm_jax"
release = lfm_jax.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
html_theme = "furo"
html_title = "lfm_jax"
myst_heading_anchors = 3
apidoc_modules = [
    {
        "path": "../lfm_jax",
        "destination": "api",
        "separate_modules": True,
        "module_first": True,
        "automodule_options": {"members"},
    }
]
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
maximum_signature_line_length = 88
autodoc_inherit_docstrings = False
napoleon_use_ivar = True
napoleon_attr_annotations = False

JAX = "jaxlib._jax.Array"
EITHER = re.compile(rf"([~.\w]+)\[{re.escape(JAX)}, ('[^']*')\] \| \1\[ndarray, \2\]")


def _as_restructured(app, what, name, obj, options, lines):
    """Docstrings are plain text: code in backticks, and indented where it is a block.

    The hook gets all of Sphinx's arguments and changes `lines` in place.
    """
    before, block, made = "", False, []
    for line in lines:
        indented = line.startswith("    ")
        if indented and not before and not block:
            made += ["::", ""]
            block = True
        elif line and not indented:
            block = False
        made.append(line if block else _escaped(line))
        before = line
    lines[:] = made


def _escaped(line: str) -> str:
    if names := re.match(r"    \w+(, \w+)+:", line):
        line = line.replace(names[0], names[0].replace(", ", ","))
    parts = re.split(r"(`[^`]*`)", line)
    parts[::2] = [
        re.sub(r"(?<!\*)\*(?!\*)|[|_\\]", r"\\\g<0>", part) for part in parts[::2]
    ]
    return "".join(f"`{part}`" if i % 2 else part for i, part in enumerate(parts))


def _short(app, what, name, obj, options, signature, returned):
    """Annotations as they are written: either kind of array is an ArrayLike."""
    if signature:
        signature, returned = (
            text and EITHER.sub(r"\1[ArrayLike, \2]", text).replace(JAX, "Array")
            for text in (signature, returned)
        )
    return signature, returned


def _skipped(app, what, name, obj, skip, options):
    """Leaves out fields of named tuples, which Attributes already explains."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def setup(app):
    app.connect("autodoc-skip-member", _skipped)
    app.connect("autodoc-process-signature", _short)
    # Before napoleon, which makes field lists of Args, Attributes and Raises.
    app.connect("autodoc-process-docstring", _as_restructured, priority=400)
