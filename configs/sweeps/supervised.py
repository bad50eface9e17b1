"""The yardstick with 3D labels: recipes on seed 0, and the one that stays on three.

benchmarks/validation.py says what each recipe comes to on validation frames, by which
it is chosen.
"""

CONFIG = "configs/lfm2d.py:archive,supervised"

RECIPES = ((1e-3, 1200), (2e-3, 1200), (1e-3, 2400), (1e-3, 4800))
CHOSEN = RECIPES[0]

RUNS = [
    {"optim.learning_rate": rate, "train.steps": steps, "seed": seed}
    for seed, recipes in ((0, RECIPES), (1, [CHOSEN]), (2, [CHOSEN]))
    for rate, steps in recipes
]
