# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Copy-paste (Ghiasi et al., CVPR 2021): objects cut out of other images, pasted where they could be.

What is pasted, how and where is a pure function of the sample, the cut-outs and a NumPy generator.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from scipy.ndimage import find_objects

from rt_panoptic_ros.errors import require
from rt_panoptic_ros.records import VOID

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rt_panoptic_ros.datasets.base import PanopticDataset, PanopticSample

_MARGIN = 3  # px around a cut-out, transparent
_MIN_FILL = 0.25  # share of its box that a whole object fills
_MIN_WHOLE = 0.85  # share of an object in its largest piece: others are mostly hidden behind something
_MIN_VISIBLE = 0.3  # share of a pasted object inside of the image and behind nothing
_SLIVER = 0.25  # no object is left with less of its pixels, but for none
_MAX_ENLARGEMENT = 1.5  # of a cut-out: larger ones look soft
_GAIN = (0.5, 1.8)  # limits of the light's change
_TRIAL_IMAGES = 20  # after which a data set without any cut-out is left
_GROUND_TRIES = 8  # ground pixels among which the best for the object's size is taken


@dataclass(frozen=True, slots=True)
class CopyPasteSettings:
    """What is pasted; by default nothing.

    An object's height h follows first, and from it where it stands: h / `rise` below the horizon, both drawn for the
    image, so that what is lower is larger; or on the best of a few random pixels of `ground`.

    Raises:
        InvalidInputError: A value is out of its range.
    """

    count: tuple[int, int] = (0, 0)  # fewest and most for an image, uniform
    classes: tuple[str, ...] = ()  # drawn first, then one of the class's cut-outs; empty: all things
    class_weights: tuple[float, ...] = ()  # chances of `classes`; empty: the root of how many cut-outs a class has
    other_share: float = 0.25  # of all other classes, things or stuff, so that a pasted edge tells nothing
    height_range: tuple[float, float] = (20.0, 240.0)  # px of the result, log-uniform
    ground: tuple[str, ...] = ()  # classes that objects stand on
    ground_probability: float = 0.7  # of standing on `ground` where there is some
    flip_probability: float = 0.5
    rotation: float = 5.0  # degrees, at most, to both sides
    light: float = 0.5  # 0 to 1: how far a cut-out takes over the light of the place
    blur: float = 1.0  # px, largest standard deviation
    min_height: int = 25  # px: of objects that are cut out
    bank_images: int = 500  # of each data set: images that cut-outs are taken from, once, when learning starts

    def __post_init__(self) -> None:
        rises = len(self.count) == 2 and 0 <= self.count[0] <= self.count[1]
        require(rises, "copy_paste.count as (fewest, most), 0 <= fewest <= most", self.count)
        rises = len(self.height_range) == 2 and 1 <= self.height_range[0] <= self.height_range[1] < np.inf
        require(rises, "copy_paste.height_range as (low, high), 1 <= low <= high", self.height_range)
        for name in ("other_share", "ground_probability", "flip_probability", "light"):
            require(0 <= getattr(self, name) <= 1, f"copy_paste.{name} from 0 to 1", getattr(self, name))
        for name, low in {"rotation": 0, "blur": 0, "min_height": 1, "bank_images": 1}.items():
            require(low <= getattr(self, name) < np.inf, f"copy_paste.{name} of at least {low}", getattr(self, name))
        weights = self.class_weights
        fits = not weights or (len(weights) == len(self.classes) and min(weights) >= 0 and 0 < sum(weights) < np.inf)
        require(fits, "copy_paste.class_weights of at least 0, one for each of copy_paste.classes", weights)


@dataclass(frozen=True, slots=True)
class CutOut:
    """An object, or a region of stuff, cut out of an image."""

    class_id: int
    thing: bool
    pixels: np.ndarray  # (h, w, 4) uint8 RGB and opacity
    open_below: bool  # whether the image ended at its lower end
    light: np.ndarray  # (3,) float64 mean RGB around it


@dataclass
class CutOutBank:
    """Cut-outs by class; an image's are drawn from it."""

    settings: CopyPasteSettings
    main: list[list[CutOut]] = field(default_factory=list)  # of the classes that were asked for and have some
    weights: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (len(main),) float64, chances
    other: list[list[CutOut]] = field(default_factory=list)
    is_ground: np.ndarray = field(default_factory=lambda: np.zeros(256, bool))  # (256,) bool, by semantic value

    def draw(self, rng: np.random.Generator, height: float) -> tuple[CutOut, bool]:
        """Return a cut-out that is sharp at `height` px if its class has one, and whether that class was asked for."""
        main = bool(self.main) and not (self.other and rng.random() < self.settings.other_share)
        classes = self.main if main else self.other
        of_class = classes[int(rng.choice(len(classes), p=self.weights if main else None))]  # the highest first
        sharp = bisect.bisect_right(of_class, -height, key=lambda item: -_MAX_ENLARGEMENT * len(item.pixels))
        return of_class[int(rng.integers(max(sharp, 1)))], main


def collect_cut_outs(datasets: Sequence[PanopticDataset], settings: CopyPasteSettings, seed: int) -> CutOutBank:
    """Return the cut-outs of data sets with one class table; it takes some 30 ms and 300 kB for each image.

    Raises:
        InvalidInputError: A class is not in the table, or nothing that was asked for can be cut out.
    """
    classes = datasets[0].classes
    for name in (*settings.classes, *settings.ground):
        require(name in classes.names, f"copy_paste of classes {', '.join(classes.names)}", f"'{name}'")
    found: list[list[CutOut]] = [[] for _ in classes.names]
    for number, dataset in enumerate(datasets):
        order = np.random.default_rng((seed, 3, number)).permutation(len(dataset))
        has_some = False
        for tried, index in enumerate(order[: settings.bank_images].tolist()):
            if tried == _TRIAL_IMAGES and not has_some:  # such as a data set of boxes alone
                break
            for cut_out in cut_outs(dataset[index], classes.thing_ids, settings):
                found[cut_out.class_id].append(cut_out)
                has_some = True
    for of_class in found:
        of_class.sort(key=lambda item: -len(item.pixels))
    asked = settings.classes or tuple(classes.names[thing] for thing in classes.thing_ids)
    of_asked = [found[classes.names.index(name)] for name in asked]
    chances = settings.class_weights or tuple(len(of_class) ** 0.5 for of_class in of_asked)
    pairs = [pair for pair in zip(of_asked, chances, strict=True) if all(pair)]
    require(bool(pairs), f"whole objects of {', '.join(asked)} to paste", "none: set copy_paste.count to [0, 0]")
    weights = np.array([chance for _, chance in pairs])
    bank = CutOutBank(settings, [of_class for of_class, _ in pairs], weights / weights.sum())
    bank.other = [
        of_class for name, of_class in zip(classes.names, found, strict=True) if of_class and name not in asked
    ]
    bank.is_ground[[classes.names.index(name) for name in settings.ground]] = True
    return bank


def cut_outs(sample: PanopticSample, thing_ids: Sequence[int], settings: CopyPasteSettings) -> Iterator[CutOut]:
    """Yield the whole objects and regions of stuff of a sample: high enough, in one piece, cut by no border but below.

    Args:
        sample: The labelled image.
        thing_ids: Classes of objects; of the others, connected regions are cut out.
        settings: Say how high a cut-out is at least, and at most of use.
    """
    rows, columns = sample.semantic.shape
    for class_id, mask, (y, x) in _regions(sample, thing_ids):
        height, width = y.stop - y.start, x.stop - x.start
        inside = mask[y, x].astype(np.uint8)
        area = int(inside.sum())
        cut = y.start == 0 or x.start == 0 or x.stop == columns
        if cut or height < settings.min_height or area < _MIN_FILL * height * width:
            continue
        pieces = cv2.connectedComponentsWithStats(inside)[2][1:, cv2.CC_STAT_AREA]
        if pieces.max() < _MIN_WHOLE * area:
            continue
        # Labels are seldom exact to the pixel: what lies at the border is left behind, and the new border is soft.
        opacity = cv2.copyMakeBorder(inside * 255, *(_MARGIN,) * 4, cv2.BORDER_CONSTANT)
        radius = 1 + height // 128
        opacity = cv2.erode(opacity, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2))
        opacity = cv2.GaussianBlur(opacity, (0, 0), 0.8 * radius)
        if 2 * np.count_nonzero(opacity > 127) < area:
            continue
        around = np.s_[
            max(y.start - height // 4, 0) : y.stop + height // 4, max(x.start - width // 2, 0) : x.stop + width // 2
        ]
        light = np.array(cv2.mean(sample.image[around], (~mask[around]).astype(np.uint8))[:3])
        image = cv2.copyMakeBorder(sample.image[y, x], *(_MARGIN,) * 4, cv2.BORDER_REPLICATE)
        pixels = np.dstack([image, opacity])
        scale = settings.height_range[1] / max(height, width / 2)  # more pixels will never be of use
        if scale < 1:
            pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        yield CutOut(class_id, class_id in thing_ids, pixels, open_below=y.stop == rows, light=light)


def _regions(sample: PanopticSample, thing_ids: Sequence[int]) -> Iterator[tuple[int, np.ndarray, tuple[slice, slice]]]:
    """Yield class, mask (H, W) bool and box of each object but crowds, and of each connected region of stuff."""
    for row, region in enumerate(find_objects(sample.instance)):
        if region is not None and not sample.instance_crowd[row]:
            yield int(sample.instance_classes[row]), sample.instance == row + 1, region
    for class_id in np.unique(sample.semantic).tolist():
        if class_id not in (VOID, *thing_ids):
            _, labels = cv2.connectedComponents((sample.semantic == class_id).astype(np.uint8))
            for label, region in enumerate(find_objects(labels), 1):
                yield class_id, labels == label, region


def paste(sample: PanopticSample, bank: CutOutBank, rng: np.random.Generator) -> PanopticSample:
    """Return the sample with objects pasted on it; those below lose pixels, and may have none left.

    Objects stand behind what is labelled and ends lower. What would leave a sliver of another object is not pasted.

    Args:
        sample: The labelled image, at the size that it is learned at.
        bank: What to paste, and how.
        rng: Source of all choices.
    """
    settings = bank.settings
    count = int(rng.integers(*settings.count, endpoint=True))
    low, high = np.log(settings.height_range).tolist()
    heights = np.exp(rng.uniform(low, high, count)).tolist()
    if not heights:
        return sample
    rows, columns = sample.semantic.shape
    canvas = _Canvas(sample, count)
    ground = np.flatnonzero(bank.is_ground[sample.semantic])
    horizon, rise = rows * rng.uniform(0.15, 0.5), np.exp(rng.uniform(*np.log((0.5, 2.5))))
    views = []
    for wanted in heights:
        cut_out, asked = bank.draw(rng, wanted)
        pixels = _view(cut_out, wanted, settings, rng)
        height = len(pixels)
        foot, middle = int(min(horizon + height / rise, rows + 0.3 * height)), int(rng.integers(columns))
        if cut_out.open_below:
            foot = rows + int(rng.integers(_MARGIN, max(height // 3, _MARGIN + 1)))
        elif not asked:
            foot = int(rng.integers(height // 2, rows + height // 2))
        elif len(ground) and rng.random() < settings.ground_probability:
            places = rng.choice(ground, _GROUND_TRIES)
            foot, middle = divmod(int(places[np.abs(places // columns - foot).argmin()]), columns)
        views.append((foot, middle, pixels, cut_out))
    for foot, middle, pixels, cut_out in sorted(views, key=lambda view: view[0]):  # the farthest first
        canvas.paste(foot, middle, pixels, cut_out, settings.light)
    return canvas.sample()


def _view(cut_out: CutOut, height: float, settings: CopyPasteSettings, rng: np.random.Generator) -> np.ndarray:
    """Return a cut-out's pixels at about `height` px, of random side, angle and sharpness: (h, w, 4) uint8."""
    pixels = cut_out.pixels
    scale = min(height / len(pixels), _MAX_ENLARGEMENT)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(len(pixels) * scale))
    pixels = cv2.resize(pixels, size, interpolation=method)
    if rng.random() < settings.flip_probability:
        pixels = cv2.flip(pixels, 1)
    angle = rng.uniform(-settings.rotation, settings.rotation)
    if angle and not cut_out.open_below:
        turn = cv2.getRotationMatrix2D((size[0] / 2 - 0.5, size[1] / 2 - 0.5), angle, 1)
        new_width, new_height = (np.abs(turn[:, :2]) @ size).astype(int)[:2] + 1
        turn[:, 2] += (new_width - size[0]) / 2, (new_height - size[1]) / 2
        pixels = cv2.warpAffine(pixels, turn, (int(new_width), int(new_height)))
    sigma = rng.uniform(0, settings.blur)
    if sigma > 0.3:  # px; less is not seen
        pixels = cv2.GaussianBlur(pixels, (0, 0), sigma)
    return pixels


class _Canvas:
    """A sample that is being pasted on."""

    def __init__(self, sample: PanopticSample, capacity: int) -> None:
        """Copy the sample's pixels; at most `capacity` objects will be pasted."""
        self._sample = sample
        self._image, self._semantic = sample.image.copy(), sample.semantic.copy()
        self._instance = sample.instance.copy()
        self._class_ids: list[int] = []
        count = len(sample.instance_classes)
        # By instance number: what an object's pixels were and are, and the row at which it ends.
        self._whole, self._ends = (np.zeros(1 + count + capacity, np.int64) for _ in range(2))
        self._whole[: count + 1] = np.bincount(sample.instance.ravel(), minlength=count + 1)
        for row, region in enumerate(find_objects(sample.instance[::4, ::4], max_label=count)):  # to 4 px
            if region is not None:
                self._ends[row + 1] = 4 * region[0].stop
        self._pasted = np.zeros(sample.semantic.shape, bool)
        rows = np.flatnonzero(sample.by_box)
        boxes = np.rint(sample.boxes[rows]).astype(int).tolist()
        self._boxes = dict(zip((rows + 1).tolist(), boxes, strict=True))  # by instance number: x1, y1, x2, y2, px
        for number, (left, top, right, bottom) in self._boxes.items():
            self._whole[number] = (right - left) * (bottom - top)
        self._left = self._whole.copy()

    def paste(self, foot: int, middle: int, pixels: np.ndarray, cut_out: CutOut, light: float) -> None:
        """Paste pixels (h, w, 4) with their lower end above row `foot`, around column `middle`, unless too hidden."""
        rows, columns = self._semantic.shape
        top, left = foot - len(pixels), middle - pixels.shape[1] // 2
        y, x = slice(max(top, 0), min(foot, rows)), slice(max(left, 0), min(left + pixels.shape[1], columns))
        if y.start >= y.stop or x.start >= x.stop:
            return
        part = pixels[y.start - top : y.stop - top, x.start - left : x.stop - left]
        below = self._instance[y, x]
        opacity = np.where(self._ends[below] > foot, 0, part[..., 3])
        covered = opacity > 127
        if np.count_nonzero(covered) < max(_MIN_VISIBLE * np.count_nonzero(pixels[..., 3] > 127), 1):
            return
        remains = self._left - np.bincount(below[covered], minlength=len(self._left))
        fresh = covered & ~self._pasted[y, x]
        for number, (x1, y1, x2, y2) in self._boxes.items():
            in_box = np.s_[max(y1 - y.start, 0) : max(y2 - y.start, 0), max(x1 - x.start, 0) : max(x2 - x.start, 0)]
            remains[number] -= np.count_nonzero(fresh[in_box])
        if ((remains < _SLIVER * self._whole) & (remains > 0) & (remains < self._left))[1:].any():
            return
        image = self._image[y, x]
        gain = (np.array(cv2.mean(image)[:3]) + 16) / (cut_out.light + 16)
        gain = gain.clip(*_GAIN) ** light
        share = (opacity / np.float32(255))[..., None]
        mixed = image + share * ((part[..., :3] * gain.astype(np.float32)).clip(0, 255) - image)
        image[:] = np.rint(mixed)
        self._semantic[y, x][covered] = cut_out.class_id
        number = 0
        self._left = remains
        self._pasted[y, x] |= covered
        if cut_out.thing:
            number = len(self._sample.instance_classes) + len(self._class_ids) + 1
            self._class_ids.append(cut_out.class_id)
            self._whole[number] = self._left[number] = np.count_nonzero(covered)
            self._ends[number] = foot
        self._instance[y, x][covered] = number

    def sample(self) -> PanopticSample:
        """Return what it has become."""
        old, new = self._sample, np.array(self._class_ids, np.uint8)
        visible = self._left[1 : len(old.boxes) + 1, None] > 0
        boxes = np.where(visible, old.boxes, np.float32(np.nan))
        return replace(
            old,
            image=self._image,
            semantic=self._semantic,
            instance=self._instance,
            instance_classes=np.concatenate([old.instance_classes, new]),
            instance_crowd=np.concatenate([old.instance_crowd, np.zeros(len(new), bool)]),
            boxes=np.concatenate([boxes, np.full((len(new), 4), np.nan, np.float32)]),
        )
