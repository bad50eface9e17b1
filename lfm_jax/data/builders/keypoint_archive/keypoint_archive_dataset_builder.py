"""TFDS builder of the 2D training set: nothing in 3D has a place in its features.

An example is a run of consecutive training frames of one category, f frames of n
keypoints, so that preparing and reading cost little. TensorFlow is never imported.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow_datasets as tfds

tfds.disable_progress_bar()


class Builder(tfds.core.GeneratorBasedBuilder):
    """Writes runs of 2D frames that are in memory already, in their order."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}

    def __init__(self, *, runs: Sequence[dict[str, np.ndarray]] = (), **kwargs):
        """Takes the examples; without any, a prepared set can still be read.

        Args:
            runs: one dictionary per example, as in the features.
            **kwargs: of `tfds.core.GeneratorBasedBuilder`.
        """
        self._runs = runs
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        def tensor(shape, dtype, doc):
            # zlib: the only encoding that allows two unknown sizes
            return tfds.features.Tensor(
                shape=shape, dtype=dtype, encoding="zlib", doc=doc
            )

        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "category": np.int32,
                    "sequence": tensor((None,), np.int32, "clip of each frame"),
                    "points2d": tensor(
                        (None, None, 2), np.float32, "units of the source"
                    ),
                    "observed": tensor((None, None), np.bool_, "given to the network"),
                    "annotated": tensor((None, None), np.bool_, "may enter a loss"),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator]:
        del dl_manager  # nothing is downloaded
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        yield from enumerate(self._runs)
