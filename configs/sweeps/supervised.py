"""The yardstick with 3D labels: recipes on seed 0, and the first on three seeds.

benchmarks/validation.py says what each recipe comes to on validation frames.
"""

CONFIG = "configs/lfm2d.py:archive,supervised"

RECIPES = ((1e-3, 1200), (2e-3, 1200), (1e-3, 2400), (1e-3, 4800), (1e-3, 9600))

RUNS = [
    {"optim.learning_rate": rate, "train.steps": steps, "seed": seed}
    for seed, recipes in ((0, RECIPES), (1, RECIPES[:1]), (2, RECIPES[:1]))
    for rate, steps in recipes
]
