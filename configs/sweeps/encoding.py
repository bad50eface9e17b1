"""Which correspondence encoding, in the published network at every layer."""

import itertools

CONFIG = "configs/lfm2d.py:archive,ablation,scratch"

ENCODINGS = (
    ("rff", 2.5),
    ("rff", 1.0),
    ("rff", 10.0),
    ("sinusoid", 2.5),
    ("learned", 2.5),
)

RUNS = [
    {"model.encoding": encoding, "model.sigma": sigma, "seed": seed}
    for seed, (encoding, sigma) in itertools.product(range(3), ENCODINGS)
]
