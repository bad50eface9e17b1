"""TFDS dataset builders, one folder each, by the TFDS folder convention."""
