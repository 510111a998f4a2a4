"""A part of a split, written behind its name: `train[:80%]`, `train[80%:]`, `train[100:200]`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rt_panoptic_ros.datasets.base import PanopticDataset, PanopticSample
from rt_panoptic_ros.errors import require

if TYPE_CHECKING:
    from collections.abc import Callable

_PART = re.compile(r"(?P<name>.*)\[(?P<first>\d+%?)?:(?P<end>\d+%?)?\]")


class Part(PanopticDataset):
    """Images of a dataset from one place in its order to another, such as those held out for looking at.

    Neighbours stay together, since the frames of a video resemble each other: a random choice would look at what was
    all but learned.
    """

    def __init__(self, dataset: PanopticDataset, indices: range) -> None:
        """Take the images at `indices`."""
        self.classes, self.instance_note = dataset.classes, dataset.instance_note
        self._dataset, self._indices = dataset, indices

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._indices)

    def __getitem__(self, index: int) -> PanopticSample:
        """Return the image at `index` of this part; see `PanopticDataset`."""
        return self._dataset[self._indices[index]]


def open_part(split: str, open_split: Callable[[str], PanopticDataset]) -> PanopticDataset:
    """Return a split of a dataset, or the part of one that is written behind its name.

    Args:
        split: NAME, or NAME[FIRST:END] in images or, with %, in percent of them, rounded down: FIRST is among them, END
            is not. Left out, they are the split's own ends.
        open_split: Opens the split of a name.

    Raises:
        InvalidInputError: The brackets hold anything else, or no image.
    """
    match = _PART.fullmatch(split)
    expected = "a split as NAME, or a part of it as NAME[:80%], NAME[80%:] or NAME[100:200],"
    require(match is not None or "[" not in split, expected, f"'{split}'")
    if match is None:
        return open_split(split)
    dataset = open_split(match["name"])
    first, end = _place(match["first"] or "0", len(dataset)), _place(match["end"] or "100%", len(dataset))
    require(first < end, expected, f"'{split}', which has none of the {len(dataset)} images")
    return Part(dataset, range(first, end))


def _place(text: str, count: int) -> int:
    return min(count, int(text[:-1]) * count // 100 if text.endswith("%") else int(text))
