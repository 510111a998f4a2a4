"""Random views of labelled images for training (Section 5.3).

Everything is a pure function of the sample and a NumPy generator, so that a training run can be resumed bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from rt_panoptic_ros.errors import require
from rt_panoptic_ros.records import VOID

if TYPE_CHECKING:
    from rt_panoptic_ros.datasets.base import PanopticSample

Window = tuple[int, int, int, int]
"""Top, left, height and width, px."""

_LUMA = np.array([0.299, 0.587, 0.114])  # weights of R, G and B in the grey value (ITU-R BT.601)


@dataclass(frozen=True, slots=True)
class AugmentationSettings:
    """What `augment` does; by default nothing.

    At most one of `crop_size`, `output_size` and `shortest_sides` is set, and it decides the size of the result:

    - none: the whole image, scaled by a factor from `scale_range`;
    - `crop_size`: a random window of the image, then scaled by a factor from `scale_range`, so sizes vary
      (Cityscapes in Section 5.3: crop_size (900, 1800), scale_range (0.7, 1.3));
    - `output_size`: the image is scaled by a factor from `scale_range`, then a random window of `output_size` is cut
      out and padded right and below where the scaled image is smaller, so that all results can be batched (CamVid);
    - `shortest_sides`: the whole image, scaled so that its shorter side gets one of these lengths, but its longer side
      at most `longest_side` (COCO in Section 5.3: shortest_sides (640, 720, 800), longest_side 1333).

    Raises:
        InvalidInputError: A value is out of its range, or two settings contradict each other.
    """

    crop_size: tuple[int, int] | None = None  # (height, width) of the window, px of the image
    output_size: tuple[int, int] | None = None  # (height, width) of the result, px
    scale_range: tuple[float, float] = (1.0, 1.0)  # (low, high), uniform; 2 doubles both sides
    base_size: tuple[int, int] | None = None  # (height, width) px that the image fits in at scale 1; None: its own
    shortest_sides: tuple[int, ...] = ()  # px, picked with equal chances
    longest_side: int | None = None  # px
    flip_probability: float = 0.0  # of mirroring left and right
    brightness: float = 0.0  # 0 to 1: these three are the x of `color_jitter`
    contrast: float = 0.0
    saturation: float = 0.0

    def __post_init__(self) -> None:
        for name in ("crop_size", "output_size", "base_size"):
            size = getattr(self, name)
            fits = size is None or (len(size) == 2 and min(size) >= 1)
            require(fits, f"{name} as (height, width) of at least 1 px each", size)
        rises = len(self.scale_range) == 2 and 0 < self.scale_range[0] <= self.scale_range[1] < np.inf
        require(rises, "scale_range as (low, high), 0 < low <= high", self.scale_range)
        sides, longest = self.shortest_sides, self.longest_side
        require(all(side >= 1 for side in sides), "shortest_sides of at least 1 px each", sides)
        require(longest is None or longest >= 1, "longest_side of at least 1 px", longest)
        for name in ("flip_probability", "brightness", "contrast", "saturation"):
            require(0 <= getattr(self, name) <= 1, f"{name} from 0 to 1", getattr(self, name))
        chosen = [name for name in ("crop_size", "output_size", "shortest_sides") if getattr(self, name)]
        require(
            len(chosen) <= 1,
            "at most one of crop_size, output_size and shortest_sides",
            f"{' and '.join(chosen)}: each of them decides the size of the result",
        )
        require(
            not sides or (self.scale_range == (1.0, 1.0) and self.base_size is None),
            "shortest_sides without scale_range and base_size",
            f"scale_range {self.scale_range} and base_size {self.base_size} too: each decides the scale",
        )
        require(
            longest is None or bool(sides),
            "longest_side only beside shortest_sides, which it limits",
            f"{longest} alone",
        )


def augment(
    sample: PanopticSample, settings: AugmentationSettings, rng: np.random.Generator, fill_rgb: tuple[int, int, int]
) -> PanopticSample:
    """Return a random view of a sample (Section 5.3), padded right and below as inference pads.

    Args:
        sample: The labelled image.
        settings: What to do.
        rng: Source of all choices; the same state gives the same result.
        fill_rgb: Colour of the padding, such as the network's mean colour.
    """
    window, size = _random_view(sample.semantic.shape, settings, rng)
    # The window is cut out before scaling, as pixels outside of it need no scaling.
    view = resize(crop_or_pad(sample, window, fill_rgb), size)
    view = color_jitter(view, rng, settings.brightness, settings.contrast, settings.saturation)
    if rng.random() < settings.flip_probability:
        view = flip_horizontally(view)
    if settings.output_size is not None:
        view = crop_or_pad(view, (0, 0, *settings.output_size), fill_rgb)
    return without_hidden_instances(view)


def flip_horizontally(sample: PanopticSample) -> PanopticSample:
    """Return the sample mirrored left and right."""
    image, semantic, instance = (cv2.flip(pixels, 1) for pixels in (sample.image, sample.semantic, sample.instance))
    return replace(sample, image=image, semantic=semantic, instance=instance)


def resize(sample: PanopticSample, size: tuple[int, int]) -> PanopticSample:
    """Return the sample at another size, all three pictures with their pixel centres aligned.

    The image is averaged over areas where both sides shrink and interpolated bilinearly otherwise; a label is that of
    the pixel under the new pixel's centre, so instances may vanish (see `without_hidden_instances`).

    Args:
        sample: The labelled image.
        size: (height, width), px.
    """
    height, width = sample.semantic.shape
    if size == (height, width):
        return sample
    interpolation = cv2.INTER_AREA if size[0] <= height and size[1] <= width else cv2.INTER_LINEAR
    # By index arrays: OpenCV's INTER_NEAREST is off by half a pixel, and no exact one takes int32.
    rows, columns = _source_indices(height, size[0]), _source_indices(width, size[1])
    return replace(
        sample,
        image=cv2.resize(sample.image, size[::-1], interpolation=interpolation),
        semantic=sample.semantic.take(rows, axis=0).take(columns, axis=1),
        instance=sample.instance.take(rows, axis=0).take(columns, axis=1),
    )


def crop_or_pad(sample: PanopticSample, window: Window, fill_rgb: tuple[int, int, int]) -> PanopticSample:
    """Return a window of the sample; what lies right of or below the image is void.

    Args:
        sample: The labelled image.
        window: Its top left pixel lies inside the image.
        fill_rgb: Colour of the window's pixels outside of the image.
    """
    top, left, height, width = window
    rows, columns = sample.semantic.shape
    if window == (0, 0, rows, columns):
        return sample
    inside = np.s_[top : top + height, left : left + width]
    below, right = max(top + height - rows, 0), max(left + width - columns, 0)

    def padded(pixels: np.ndarray, fill: int | tuple[int, int, int]) -> np.ndarray:
        result: np.ndarray = cv2.copyMakeBorder(pixels[inside], 0, below, 0, right, cv2.BORDER_CONSTANT, value=fill)
        return result

    image, semantic = padded(sample.image, fill_rgb), padded(sample.semantic, VOID)
    return replace(sample, image=image, semantic=semantic, instance=padded(sample.instance, 0))


def color_jitter(
    sample: PanopticSample, rng: np.random.Generator, brightness: float, contrast: float, saturation: float
) -> PanopticSample:
    """Return the sample in randomly changed colours, labels untouched.

    Brightness scales the colours, contrast their distance to the image's mean grey value, saturation their distance to
    the pixel's own grey value, in this order and with the values clipped to 0..255 at the end only.

    Args:
        sample: The labelled image.
        rng: Source of the three factors.
        brightness: x of the range [1 - x, 1 + x] that the factor is drawn from, 0 to 1; 0 for no change.
        contrast: The same for contrast.
        saturation: The same for saturation.
    """
    if brightness == contrast == saturation == 0:
        return sample
    b, c, s = (rng.uniform(1 - x, 1 + x) for x in (brightness, contrast, saturation))
    mean_grey = b * float(_LUMA @ cv2.mean(sample.image)[:3])
    # All three are affine in the colour, so together they are one 3x4 matrix and one pass over the image.
    matrix = np.empty((3, 4))
    matrix[:, :3] = b * c * (s * np.eye(3) + (1 - s) * _LUMA)
    matrix[:, 3] = (1 - c) * mean_grey
    return replace(sample, image=cv2.transform(sample.image, matrix))


def without_hidden_instances(sample: PanopticSample) -> PanopticSample:
    """Return the sample with only those instances that have pixels, in the same order, numbered 1 to n."""
    visible = np.zeros(len(sample.instance_classes) + 1, bool)
    visible[sample.instance] = True
    visible[0] = True
    if visible.all():
        return sample
    numbers = np.cumsum(visible, dtype=np.int32) - 1
    return replace(
        sample,
        instance=numbers.take(sample.instance),
        instance_classes=sample.instance_classes[visible[1:]],
        instance_crowd=sample.instance_crowd[visible[1:]],
    )


def _random_view(
    shape: tuple[int, ...], settings: AugmentationSettings, rng: np.random.Generator
) -> tuple[Window, tuple[int, int]]:
    """Return a window of an image of `shape` and the size that it is to be scaled to, (height, width) px."""
    rows, columns = shape
    if settings.shortest_sides:
        scale = int(rng.choice(settings.shortest_sides)) / min(rows, columns)
        if settings.longest_side is not None:
            scale = min(scale, settings.longest_side / max(rows, columns))
        return (0, 0, rows, columns), (_scaled(rows, scale), _scaled(columns, scale))
    scale = rng.uniform(*settings.scale_range)
    if settings.base_size is not None:
        scale *= min(settings.base_size[0] / rows, settings.base_size[1] / columns)
    height, width = rows, columns
    size = _scaled(rows, scale), _scaled(columns, scale)
    if settings.crop_size is not None:
        height, width = min(rows, settings.crop_size[0]), min(columns, settings.crop_size[1])
        size = _scaled(height, scale), _scaled(width, scale)
    elif settings.output_size is not None:
        size = min(size[0], settings.output_size[0]), min(size[1], settings.output_size[1])
        height, width = min(rows, _scaled(size[0], 1 / scale)), min(columns, _scaled(size[1], 1 / scale))
    top, left = int(rng.integers(rows - height + 1)), int(rng.integers(columns - width + 1))
    return (top, left, height, width), size


def _scaled(length: int, scale: float) -> int:
    return max(1, round(length * scale))


def _source_indices(source: int, target: int) -> np.ndarray:
    """Return, for each of `target` pixels, which of `source` pixels lies under its centre: integers, thus exact."""
    indices: np.ndarray = (2 * np.arange(target) + 1) * source // (2 * target)
    return indices
