# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What colours the overlays show: the dataset's own, or ones that colour-blind people tell apart."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from rt_panoptic_ros.drawing.color_vision import lab
from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.settings import PALETTES

if TYPE_CHECKING:
    from rt_panoptic_ros.model.class_table import ClassTable

# Three colours of Okabe and Ito's set ("Color Universal Design", 2008), then by Glasbey's method (2007) always the
# colour of a grid that is farthest from black, the overlay's void, and from all before it, to the eye that tells them
# apart the least. All seven of Okabe and Ito's would cost a third of the distance among up to 11 classes.
# test_palettes.py makes the list anew and says how far its colours lie apart.
_COLORBLIND = """
    56b4e9 f0e442 d55e00
    9600ff 4b695a 780078 d2ffe1 780f00 f0a578 9678ff 3c00a5 b496a5 96693c 2df0ff c34ba5 4b2d4b 963cb4 96ff78 2d3c2d
    b41e00 f00078 b4c33c e1f0b4 78a53c e1b4a5 693cd2 a51e78 694b2d b4d2d2 7887e1 d27869 5a1e96 87b4d2 4b87b4 877887
    964bff b4ffff 002dd2 962d96 87d25a 870f3c ff871e c30f5a 69d2ff 964bd2 c3ff00 a5f087 00e187 3c2d5a c39687 ffd2c3
    782db4 1e6900 c3b4b4 87964b e14bc3 ff4b96 9696b4 a5b4c3 f0c30f a5692d 4b965a c3e15a 87d2e1 698778 3c00ff 96871e
    3c4b69 f0ff5a 695a87 b487ff 3c3c1e 4b4b4b 2dc35a d24bd2 e1ffd2 a5a5ff 4b3c0f d2d2a5 a53c3c 0f4bf0 96b43c 1e3c78
    7869f0 4b0096 69b40f 78f0c3 f0e1e1 e1d296 0000c3 871e96 5a5a1e f08778 2da596 5a1eb4 b44b69 8796d2 87694b 3c4b3c
    e187e1 3c5aa5 ffb478 ffc3f0 f0005a e10000 d2e14b a5b4ff a50f69 b4e169 964b2d fff069 5ad2a5 69005a d21e96 3c3ca5
    c3a55a 3c00e1 786996 ff4bb4 693c5a 5a7869 a5a578 e13cff f05a3c 780087 874b4b e1ff96 7800e1 962de1 a53ce1 965a1e
    870f69 7878c3 5a1ec3 870f1e 5aa569 4b7878 b4ffa5 5a693c c369e1 5ae11e 690f3c b4b487 872d4b f00f3c d2a596 c3f00f
    d20f1e a52dc3 b41ea5 a5fff0 d2b469 d2c387 a58787 693c2d 5af0b4 a55ae1 e196d2 1e5a78 b40f87 5ac3f0 5a0f69 87784b
    871e87 96c31e 69e1b4 a5d2c3 c31ed2 f0b4e1 78004b ff2d87 8796f0 a54bb4 d25aa5 c3f0d2 00b4c3 5a0087 e1c34b e1f05a
    78963c 692d5a b4e1d2 78873c a578f0 961ec3 ff87c3 ff69a5 961e3c 1e96b4 f096f0 d278d2 5ac396 5a875a 5ab44b a53c5a
    b48796 d28700 c3f0ff 2d5ac3 b48778 96d296 7800a5 1e4bb4 4b5a69 ff002d a5ff87 e1b4ff 1ea55a c3b44b 0f3ce1 d2e1a5
    8778d2 e13cb4 785a96 96f078 ff5ac3 e1d2e1 f0f0c3 c30f78 2d6978 69d278 d28769 965a87 b4f096 965ac3 690f2d a52d1e
    a5c3d2 5aa5e1 ffc3b4 b4b4e1 003c4b a50f00 b4a5b4 8787c3 00e1f0 d2a569 d2ff4b c33cf0 5a00b4 2d8700 960fd2 4b2d87
    c3964b b4f0f0 5a96a5 878796 b4c3c3 780f2d 78e14b a57869 4b781e b45a69 87e178 d269a5
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
