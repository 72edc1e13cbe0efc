"""The rendered people: datasets in the layouts of real ones, made by ``tools/synthesize_people.py``."""

from dataclasses import dataclass

TITLE = "Rendered people"  # heading in datasets/README.md


@dataclass(frozen=True)
class Rendered:
    """A folder of rendered datasets.

    Attributes:
        start: of the datasets' names, before the name of the real dataset.
        folder: under the datasets root; in it the folders are named as those of the real datasets.
        skeleton: key of ``SKELETONS``: the order of keypoints in its COCO files.
    """

    start: str
    folder: str
    skeleton: str


RENDERED = (Rendered("synth", "synth_mini", "coco"), Rendered("synth_b", "synth_b", "synth_b"))
