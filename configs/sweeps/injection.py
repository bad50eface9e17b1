"""Where the correspondence encoding enters, by depth, in the published network.

Without a start: a start knows every keypoint by name, whatever the encoding. The first
runs are three seeds of each; then one seed of other places, of other depths, of queries
and keys alone, and of the image let in at once, as published, with L_view and without.
"""

import itertools

CONFIG = "configs/lfm2d.py:archive,ablation,scratch"


def _run(injection, layers=4, seed=0, values=True, weight=0.3, gate=True):
    return {
        "model.injection": injection,
        "model.inject_values": values,
        "model.layers": layers,
        "objective.view_weight": weight,
        "model.gate": gate,
        "seed": seed,
    }


PLACES = ("none", "input", "every")

RUNS = [
    *(_run(place, seed=seed) for place, seed in itertools.product(PLACES, range(3))),
    *(_run(place) for place in ("first_last", "every_2")),
    *(
        _run("every", values=False, gate=gate, seed=seed)
        for gate, seed in itertools.product((True, False), range(3))
    ),
    *(_run(place, gate=False, seed=seed) for place in PLACES for seed in range(3)),
    *(
        _run(place, weight=0.0, gate=gate, seed=seed)
        for gate, place, seed in itertools.product(
            (True, False), ("none", "every"), range(3)
        )
    ),
    _run("every", layers=6),
    *(
        _run(place, layers=12, seed=seed)
        for seed, place in itertools.product(range(3), PLACES)
    ),
    _run("every", layers=24),
]
