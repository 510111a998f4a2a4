"""What counts as found, as false, and as neither."""

from __future__ import annotations

import numpy as np

from scripts.people_found import Found, count_found


def test_predictions_find_one_box_each_and_unknown_regions_excuse() -> None:
    labelled = np.array([[0, 0, 10, 20], [30, 0, 40, 20]])
    unknown = np.array([[60, 0, 100, 40]])
    predicted = np.array([[0, 0, 10, 18], [1, 0, 10, 20], [70, 10, 80, 20], [96, 0, 116, 20], [30, 15, 40, 35]])
    assert count_found(predicted, labelled, unknown) == Found(found=1, labelled=2, false=3)
    nothing = np.zeros((0, 4))
    assert count_found(nothing, labelled, unknown) == Found(0, 2, 0)
    assert count_found(predicted, nothing, nothing) == Found(0, 0, 5)
    assert Found(49, 207, 10).format() == "found 49 of 207 (0.237), precision 0.831 (10 false)"
