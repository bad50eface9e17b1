"""lfm_jax: 3D structure from 2D keypoints of any object, without 3D labels.

What was trained, used:

    import lfm_jax
    lifter = lfm_jax.load("lfm2d-small")   # or the folder of a release, or of a run
    lifted = lifter.lift(points2d, category="dog")
"""

__version__ = "0.1.0"


def load(name="lfm2d-small"):
    """A model that lifts (`serve.Lifter`): see `release.load`."""
    from lfm_jax import release  # brings JAX along, which the version does not need

    return release.load(name)
