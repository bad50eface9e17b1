"""lfm_jax: 3D structure from 2D keypoints of any object, without 3D labels."""

__version__ = "0.1.0"
