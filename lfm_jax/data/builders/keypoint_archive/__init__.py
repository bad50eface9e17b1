"""The 2D training set of a keypoint archive."""
