"""What colours the overlays show: the dataset's own, or ones that colour-blind people tell apart."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from rt_panoptic_ros.color_vision import lab
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.settings import PALETTES

if TYPE_CHECKING:
    from rt_panoptic_ros.class_table import ClassTable

# Okabe and Ito's seven colours ("Color Universal Design", 2008; their eighth, black, is the overlay's void), then by
# Glasbey's method (2007) always the colour of a grid that is farthest from black and from all before it, to the eye
# that tells them apart the least. test_palettes.py makes the list anew and says how far its colours lie apart.
_COLORBLIND = """
    e69f00 56b4e9 009e73 f0e442 0072b2 d55e00 cc79a7
    8700f0 5a2d00 d2ffe1 2d1e96 00ff87 5a4b5a 9678ff 87a55a 964b3c d2d2e1 780f78 96d296 78002d d200b4 961ed2 a53c0f
    875a87 e1b45a c3a5a5 7896f0 f0ff78 a5ffb4 697878 a5b4d2 ff4b4b 00e1ff 5a2d5a 964bff 784b4b d2ff00 f0c3c3 1e3c2d
    2dd21e 69b478 96783c c35a5a 1e4b87 fff0ff d2e15a a5001e 4b960f b4c378 964bd2 c35ad2 c387d2 5a00c3 782db4 0000ff
    960f96 c3b4c3 a569a5 0f00d2 c30f69 c3e1b4 5a4b1e 69f096 3c87d2 785a96 2d5ae1 1eb496 870f4b b4f0e1 3c2d69 ff3c87
    69e169 e1ffd2 e1873c 0f3ce1 ffb4f0 5aa5b4 c3ff5a 783c78 1e5aa5 3c693c 4b1e87 e178ff 690fb4 ff7896 ffb43c fff096
    698796 7869f0 ff6978 875a2d d2a5ff f0d278 2d695a a55a00 4b4bff 87d2a5 87785a 3c3ca5 f03c2d 4b3c4b 00d2e1 c39600
    1e4b0f 78c34b d2f01e 6996c3 87b45a 87965a e1e1ff 695a69 8769c3 c32d2d 87000f 78e1c3 d296c3 782d3c 693c2d b4ffa5
    3c69ff e1a587 78694b 87872d 5a0f78 f0b4ff 871e69 78e13c 5a7896 87ff69 b45a78 4b2d3c b4874b b47869 b44b4b 9669e1
    b4e1a5 b4a5b4 c3b41e 785a78 4b3cc3 ff8769 78003c e11e00 5a1e4b 4b5a87 a52dc3 c34b69 c3d287 788787 784b78 9678c3
    96b469 b44b1e 781e87 e169b4 f0a5e1 ffd2d2 d2b4b4 3c00a5 a52da5 d2d25a 8796e1 2dc3a5 96693c 690069 d2f0c3 1e7869
    969687 a578e1 3c3c78 c31e87 694b3c e1ff87 f0f0f0 874b5a b469b4 b400e1 ffe1d2 a54b5a 69b4c3 c3d2b4 e19687 a5784b
    691e96 693c96 ff964b 0f5ac3 a55a96 d296ff 4b1ea5 96d2d2 b40fb4 4bc3e1 5a1e5a 5a3c69 870fd2 a54bb4 c3c387 c36987
    c39696 6996a5 c396d2 1e1ee1 0ff078 b4005a 001eb4 5a00d2 c378c3 d2e1c3 e1e187 a58796 a50087 965ae1 f096d2 691e1e
    e1c369 96001e c3b496 b4f0a5 e178e1 5a3c0f ff5a2d a500f0 873c2d b40f1e 004b3c 78d25a e1d24b f0e1f0 69691e c3a5f0
    c33cc3 2dffd2 2dd2b4 ffc3ff 4b69d2 7869a5 e1d2f0 4ba54b 8796ff ff87a5 a5a53c 2d87f0 ff695a 96962d 96ff78 c369d2
    96873c b4b478 f0b496 4b5a4b 5a00f0 87c369 3c4b4b b44ba5
"""


def recolored(classes: ClassTable, palette: str) -> ClassTable:
    """Return the classes in a palette's colours.

    With `colorblind`, the n classes share the first n colours of one list, each as near to its own colour as can be.

    Args:
        classes: In the dataset's colours.
        palette: One of `PALETTES`.

    Raises:
        InvalidInputError: There is no such palette.
    """
    if palette not in PALETTES:
        raise InvalidInputError(f"expected a palette named one of {', '.join(PALETTES)}, got '{palette}'")
    return classes if palette == "dataset" else _colorblind(classes)


def colorblind_colors(count: int) -> np.ndarray:
    """Return the first colours of the colour-blind-safe list, (count, 3) uint8 RGB, count at most 255."""
    return np.frombuffer(bytes.fromhex(_COLORBLIND), np.uint8).reshape(-1, 3)[:count]


@lru_cache(maxsize=16)
def _colorblind(classes: ClassTable) -> ClassTable:
    from scipy.optimize import linear_sum_assignment

    shown = colorblind_colors(len(classes))
    own = classes.colors[: len(classes)]
    distances = np.linalg.norm(lab(own)[:, None] - lab(shown), axis=2)
    chosen = shown[linear_sum_assignment(distances)[1]].tolist()
    return replace(
        classes,
        classes=tuple(
            replace(entry, color=(red, green, blue))
            for entry, (red, green, blue) in zip(classes.classes, chosen, strict=True)
        ),
    )
