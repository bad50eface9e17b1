"""The one error that a user is meant to read.

Everything that can be wrong with what a user hands in (files, names, configs,
work directories) is raised as :class:`LfmError`, with one sentence that says what is
wrong, where (file, frame, keypoint), and the mend. The command line prints that
sentence and exits with 2; a traceback means a defect of ours.
"""


class LfmError(Exception):
    """Bad input, said in one sentence that the user can act on."""

    def __init__(self, sentence: str):
        # Files are quoted, and may hold line breaks or what steers a terminal.
        super().__init__("".join(c if c.isprintable() else " " for c in sentence))
