# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The losses against hand-worked numbers and finite differences, and their sum on whole networks' outputs."""

from __future__ import annotations

import math

import pytest
import torch

from rt_panoptic_ros.errors import InvalidInputError
from rt_panoptic_ros.model.architecture import NetworkConfig
from rt_panoptic_ros.network.head import NetworkOutputs
from rt_panoptic_ros.network.panoptic_network import PanopticNetwork
from rt_panoptic_ros.training.batches import Batch, ImageLabels
from rt_panoptic_ros.training.boxes import offset_iou, offsets_to_boxes, paired_iou, suppress
from rt_panoptic_ros.training.losses import (
    LossWeights,
    box_class_loss,
    box_regression_loss,
    centerness_loss,
    levelness_loss,
    semantics_loss,
    total_loss,
)
from rt_panoptic_ros.training.mask_loss import dense_boxes, mask_loss, query_boxes, query_losses
from rt_panoptic_ros.training.targets import IGNORED_LEVEL, Targets, assign_targets, level_positions

torch.set_num_threads(1)

ONE = torch.tensor(1.0)
SIZES = ((8, 12), (4, 6), (2, 3), (1, 2), (1, 1))  # of the levels, for images of 64x96 px
PARTS = ("box_regression", "centerness", "levelness", "box_class", "semantics", "mask")


def random(*shape: int, seed: int = 0, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def labels(kind: str = "objects") -> ImageLabels:
    """Return a 64x96 image's labels: two objects (classes 1 and 2), none (`empty`), or all void (`void`).

    Of `boxes`, both objects are known by their box alone; of `mixed`, the second.
    """
    semantic = torch.zeros(64, 96, dtype=torch.uint8)
    instance = torch.zeros(64, 96, dtype=torch.int32)
    boxes, by_box = [], []
    if kind == "void":
        semantic[:] = 255
    if kind in ("objects", "mixed", "boxes"):
        boxes = [[4, 8, 50, 60], [56, 10, 90, 40]]
        by_box = [kind == "boxes", kind != "objects"]
        for row, (x1, y1, x2, y2) in enumerate(boxes):
            if by_box[row]:
                semantic[y1:y2, x1:x2] = 255
            else:
                instance[y1:y2, x1:x2], semantic[y1:y2, x1:x2] = 1 + row, 1 + row
        semantic[50:, 60:] = 255
    return ImageLabels(
        image=torch.randint(0, 256, (3, 64, 96), generator=torch.Generator().manual_seed(1), dtype=torch.uint8),
        semantic=semantic,
        instance=instance,
        unknown=semantic == 255,
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        by_box=torch.tensor(by_box, dtype=torch.bool),
        channels=torch.arange(len(boxes)),
    )


def targets_of(*kinds: str) -> Targets:
    images = [labels(kind) for kind in kinds]
    batch = Batch(torch.stack([item.image for item in images]), tuple(images))
    return assign_targets(batch, SIZES, level_ranges_px=(20.0, 40.0, 80.0, 160.0))


def random_outputs(seed: int = 0) -> NetworkOutputs:
    """Return leaves, of one 64x96 image and 2 of 3 classes things."""
    maps = {"box_class_logits": 2, "box_offsets": 4, "centerness_logits": 1}
    per_level = {
        name: [random(1, channels, *size, seed=seed + level + channels) for level, size in enumerate(SIZES)]
        for name, channels in maps.items()
    }
    per_level["box_offsets"] = [20 + 2 * part for part in per_level["box_offsets"]]
    outputs = NetworkOutputs(
        semantic_logits=random(1, 3, 8, 12, seed=seed),
        levelness_logits=random(1, 6, 16, 24, seed=seed),
        **per_level,
    )
    for part in leaves(outputs):
        part.requires_grad_()
    return outputs


def leaves(outputs: NetworkOutputs) -> list[torch.Tensor]:
    return [part for item in outputs for part in (item if isinstance(item, (list, tuple)) else [item])]


def assert_gradient(function, at: torch.Tensor, step: float = 1e-2) -> None:
    """Compare a float32 function's gradient with a central difference along random directions."""
    at = at.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(at), at)
    for seed in range(3):
        direction = random(*at.shape, seed=seed + 50)
        with torch.no_grad():
            slope = (function(at + step * direction) - function(at - step * direction)) / (2 * step)
        torch.testing.assert_close(slope, (gradient * direction).sum(), rtol=5e-3, atol=5e-4)


def test_box_regression_by_hand() -> None:
    target = torch.tensor([[2.0, 2, 2, 2], [1, 1, 3, 3]])
    predicted = torch.tensor([[1.0, 2, 1, 2], [1, 1, 3, 3]])  # IoU 8 / 16 and 1
    torch.testing.assert_close(offset_iou(predicted, target), torch.tensor([0.5, 1.0]))
    torch.testing.assert_close(box_regression_loss(predicted, target, torch.tensor(2.0)), torch.tensor(math.log(2) / 2))
    torch.testing.assert_close(box_regression_loss(predicted, target, torch.tensor(4.0)), torch.tensor(math.log(2) / 4))
    assert box_regression_loss(torch.zeros(0, 4), torch.zeros(0, 4), ONE) == 0


def test_box_regression_gradient() -> None:
    predicted = (10 + random(5, 4, seed=1, dtype=torch.float64)).requires_grad_()
    target = 10 + random(5, 4, seed=2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: box_regression_loss(x, target, torch.tensor(5.0)), predicted)


def test_offset_iou_is_the_iou_of_the_boxes() -> None:
    a, b = random(30, 4, seed=3, scale=9).abs(), random(30, 4, seed=4, scale=9).abs()
    xy = random(30, 2, seed=5, scale=50)
    want = paired_iou(offsets_to_boxes(a, xy), offsets_to_boxes(b, xy))
    torch.testing.assert_close(offset_iou(a, b), want, rtol=1e-4, atol=1e-5)


def test_centerness_loss_by_hand() -> None:
    logits, target = torch.tensor([0.0, math.log(3)]), torch.tensor([0.3, 0.5])
    want = (math.log(2) - 0.5 * math.log(0.75) - 0.5 * math.log(0.25)) / 2
    torch.testing.assert_close(centerness_loss(logits, target, torch.tensor(2.0)), torch.tensor(want))
    assert_gradient(lambda x: centerness_loss(x, target, torch.tensor(2.0)), logits)


def test_focal_loss_by_hand() -> None:
    logits = torch.zeros(1, 4, 2)
    logits[0, 0, 1] = math.log(3)
    logits[0, 2] = 7  # ignored
    channels = torch.tensor([[1, 0, 0, 0]])
    foreground = torch.tensor([[True, False, False, True]])
    ignored = torch.tensor([[False, False, True, True]])  # the last is foreground, so it counts
    absent = 0.75 * 0.5**2 * math.log(2)
    locations = [
        0.25 * 0.25**2 * -math.log(0.75) + absent,
        2 * absent,
        0.25 * 0.5**2 * math.log(2) + absent,
    ]
    got = box_class_loss(logits, channels, foreground, ignored)
    torch.testing.assert_close(got, torch.tensor(sum(locations) / 3))
    assert_gradient(lambda x: box_class_loss(x, channels, foreground, ignored), random(1, 4, 2, seed=6))
    nothing = torch.zeros(1, 4, dtype=torch.bool)
    assert box_class_loss(logits, channels, nothing, ~nothing) == 0


def test_levelness_loss_by_hand() -> None:
    logits = torch.zeros(1, 6, 1, 3)
    logits[0, 2, 0, 1] = math.log(5)
    logits[0, 0, 0, 2] = 9  # ignored
    target = torch.tensor([[[0, 2, IGNORED_LEVEL]]])
    torch.testing.assert_close(levelness_loss(logits, target), torch.tensor((math.log(6) + math.log(2)) / 2))
    assert_gradient(lambda x: levelness_loss(x, target), random(1, 6, 1, 3, seed=7))
    assert levelness_loss(logits, torch.full_like(target, IGNORED_LEVEL)) == 0


def test_semantics_loss_counts_the_worst_three_tenths() -> None:
    """Of 10 labelled pixels, 2 are of the less likely class, so the worst 3 are these and a likely one."""
    logits = torch.tensor([math.log(3), 0.0]).view(1, 2, 1, 1)
    target = torch.full((1, 4, 5), 255, dtype=torch.uint8)
    target[0, :2] = 0
    target[0, 1, :2] = 1
    want = (2 * math.log(4) + math.log(4 / 3)) / 3
    torch.testing.assert_close(semantics_loss(logits, target), torch.tensor(want))
    all_pixels = (2 * math.log(4) + 8 * math.log(4 / 3)) / 10
    torch.testing.assert_close(semantics_loss(logits, target, worst=1.0), torch.tensor(all_pixels))
    weighted = (2 * 3 * math.log(4) + math.log(4 / 3)) / 3
    torch.testing.assert_close(semantics_loss(logits, target, class_weights=(1.0, 3.0)), torch.tensor(weighted))
    assert_gradient(lambda x: semantics_loss(x, target), random(1, 2, 1, 1, seed=8), step=1e-3)
    assert semantics_loss(logits, torch.full_like(target, 255)) == 0


def test_query_losses_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 2, 4], [0, 0, 4, 2], [8, 8, 9, 9]])  # IoU 1, 1/2, 1/2, 0
    queries = torch.tensor([[0.0, 0, 4, 4]]).repeat(2, 1)
    target_boxes = torch.tensor([[0.0, 0, 4, 8]]).repeat(2, 1)  # beta 1/2
    masks = torch.tensor([[True, True, False, True], [False] * 4])
    false_positive, false_negative = 0.5, 0 + 0.5 + 1
    want = 0.5 / 3 * (false_positive + false_negative)
    torch.testing.assert_close(query_losses(boxes, queries, target_boxes, masks), torch.tensor([want, 0.0]))


def test_query_losses_gradient() -> None:
    centers = 20 + random(6, 2, seed=9, dtype=torch.float64)
    boxes = torch.cat([centers - 5, centers + 5], dim=1) + random(6, 4, seed=10, dtype=torch.float64)
    queries = torch.tensor([[15.1, 14.2, 25.3, 24.4], [13.0, 16.0, 22.0, 27.0]], dtype=torch.float64)
    masks = torch.tensor([[True] * 3 + [False] * 3, [False] * 4 + [True] * 2])
    assert torch.autograd.gradcheck(lambda x: query_losses(x, queries, queries + 1, masks), boxes.requires_grad_())


def greedy(boxes: torch.Tensor, scores: torch.Tensor, groups: torch.Tensor, threshold: float) -> list[int]:
    kept: list[int] = []
    for row in sorted(range(len(boxes)), key=lambda index: (-scores[index].item(), index)):
        if all(groups[row] != groups[other] or paired_iou(boxes[row], boxes[other]) <= threshold for other in kept):
            kept.append(row)
    return kept


@pytest.mark.parametrize("count", [0, 1, 60])
def test_suppress_is_greedy(count: int) -> None:
    for seed in range(4):
        corners = random(count, 2, seed=seed, scale=8)
        boxes = torch.cat([corners, corners + 4 + random(count, 2, seed=seed + 1, scale=6).abs()], dim=1)
        scores = (random(count, seed=seed + 2).sigmoid() * 20).round() / 20  # with ties
        groups = (random(count, seed=seed + 3) > 0).long()
        for threshold in (0.2, 0.5):
            order = scores.sort(descending=True, stable=True).indices
            kept = suppress(boxes[order], groups[order], threshold)
            assert order[kept].tolist() == greedy(boxes, scores, groups, threshold)
            twice = suppress(boxes[order].expand(2, -1, -1), groups[order].expand(2, -1), threshold)
            assert torch.equal(twice, kept.expand(2, -1))


def test_dense_boxes_come_from_the_likeliest_level_background_aside() -> None:
    outputs = random_outputs()
    with torch.no_grad():
        for level, part in enumerate(outputs.box_offsets):
            part[:] = 10.0 * (1 + level)
        outputs.levelness_logits[:] = 0
        outputs.levelness_logits[:, 0] = 5
        outputs.levelness_logits[:, 3, :8] = 1
        outputs.levelness_logits[:, 5, 8:] = 1
    reach = torch.full((16, 24), 30.0)
    reach[8:] = 50
    xy = level_positions(16, 24, 4, torch.device("cpu")).float()
    want = offsets_to_boxes(reach.flatten()[:, None].expand(-1, 4), xy)
    torch.testing.assert_close(dense_boxes(outputs)[0], want)


def test_mask_loss_is_the_mean_over_query_boxes() -> None:
    outputs, targets = random_outputs(), targets_of("objects")
    ((queries, rows),) = query_boxes(outputs, targets)
    assert len(queries) > 1
    assert targets.foreground[0][rows].all()
    boxes, known = dense_boxes(outputs)[0].detach(), targets.levelness[0].flatten() != IGNORED_LEVEL
    assert not known.all()
    want = 0.0
    for query, row in zip(queries, rows, strict=True):
        mask = targets.instance[0].flatten() == 1 + targets.objects[0][row]
        errors = 0.0
        for box, inside, counts in zip(boxes, mask, known, strict=True):
            iou = paired_iou(box, query).item()
            errors += ((1 - iou) if inside else iou) if counts else 0.0
        beta = paired_iou(query, targets.boxes[0][row]).item()
        want += beta / mask.sum().item() * errors / len(queries)
    assert mask_loss(outputs, targets).item() == pytest.approx(want, rel=1e-4)


def test_objects_known_by_their_box_alone_neither_ask_nor_answer_in_the_mask_loss() -> None:
    outputs, mixed, whole = random_outputs(), targets_of("mixed"), targets_of("objects")
    ((_, rows),) = query_boxes(outputs, mixed)
    assert mixed.objects[0][rows].unique().tolist() == [0]
    in_box = mixed.instance == -1
    assert torch.equal(in_box, whole.instance == 2)
    assert not mixed.masked[mixed.foreground & (mixed.objects == 1)].any()
    unknown = whole._replace(
        foreground=whole.foreground & (whole.objects == 0),
        levelness=torch.where(in_box, IGNORED_LEVEL, whole.levelness),
    )
    assert mask_loss(outputs, mixed) == mask_loss(outputs, unknown) != mask_loss(outputs, whole)


def test_mask_loss_changes_box_offsets_alone() -> None:
    outputs, targets = random_outputs(), targets_of("objects")
    parts = leaves(outputs)
    gradients = torch.autograd.grad(mask_loss(outputs, targets), parts, allow_unused=True)
    offsets = {id(part) for part in outputs.box_offsets}
    for part, gradient in zip(parts, gradients, strict=True):
        if id(part) in offsets:
            assert gradient is not None
            assert gradient.isfinite().all()
        else:
            assert gradient is None or not gradient.any()
    assert gradients[[id(part) for part in parts].index(id(outputs.box_offsets[0]))].any()


def test_mask_loss_gradient_through_the_dense_boxes() -> None:
    """Offsets outside the foreground make no query box, so finite differences see what autograd does."""
    outputs, targets = random_outputs(), targets_of("objects")
    (gradient,) = torch.autograd.grad(mask_loss(outputs, targets), [outputs.box_offsets[0]])
    free = ~targets.foreground[0, :96].view(1, 1, 8, 12)
    direction = gradient * free
    direction = direction / direction.norm()
    values = []
    with torch.no_grad():
        for sign in (1, -1):
            moved = [outputs.box_offsets[0] + sign * 0.1 * direction, *outputs.box_offsets[1:]]
            values.append(mask_loss(outputs._replace(box_offsets=moved), targets))
    slope = (values[0] - values[1]) / 0.2
    torch.testing.assert_close(slope, (gradient * direction).sum(), rtol=2e-2, atol=0)


def small_network() -> PanopticNetwork:
    torch.manual_seed(0)
    config = NetworkConfig(
        "resnet18", pyramid_channels=16, localization_channels=16, semantics_channels=8, tower_depth=1
    )
    return PanopticNetwork(config, num_classes=3, num_things=2).eval()


@pytest.mark.parametrize(
    "kinds",
    [("objects", "empty"), ("empty",), ("void",), ("void", "objects"), ("boxes",), ("boxes", "objects"), ("mixed",)],
)
def test_total_loss_is_finite_whatever_the_scene(kinds: tuple[str, ...]) -> None:
    network = small_network()
    images = torch.stack([labels(kind).image for kind in kinds]).float() / 64 - 2
    outputs = network(images)
    assert tuple(tuple(part.shape[2:]) for part in outputs.box_offsets) == SIZES
    total, parts = total_loss(outputs, targets_of(*kinds), LossWeights())
    assert set(parts) == set(PARTS)
    assert total.isfinite()
    assert all(value.isfinite() and value >= 0 and not value.requires_grad for value in parts.values())
    total.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    if kinds == ("void",):
        assert total == 0
    if kinds == ("empty",):
        assert parts["box_regression"] == parts["centerness"] == parts["mask"] == 0
        assert parts["box_class"] > 0
    if kinds == ("boxes",):
        assert parts["mask"] == 0
        assert min(parts[name] for name in PARTS[:4]) > 0


def test_weights_multiply() -> None:
    outputs, targets = random_outputs(), targets_of("objects")
    _, parts = total_loss(outputs, targets, LossWeights())
    values = dict(zip(PARTS, (1.0, 2.0, 3.0, 4.0, 0.5, 0.25), strict=True))
    total, again = total_loss(outputs, targets, LossWeights(**values))
    assert again == parts
    torch.testing.assert_close(total, sum(values[name] * parts[name] for name in PARTS))
    total, parts = total_loss(outputs, targets, LossWeights(mask=0))
    assert "mask" not in parts
    torch.testing.assert_close(total, sum(parts.values()))
    _, parts = total_loss(outputs._replace(levelness_logits=None), targets, LossWeights())
    assert set(parts) == set(PARTS) - {"levelness", "mask"}


def test_foreground_count_is_the_callers() -> None:
    outputs, targets = random_outputs(), targets_of("objects")
    _, one = total_loss(outputs, targets, LossWeights())
    _, other = total_loss(outputs, targets, LossWeights(), reduce_count=lambda count: 2 * count)
    for name in PARTS:
        factor = 2 if name in ("box_regression", "centerness") else 1
        torch.testing.assert_close(one[name], factor * other[name])


@pytest.mark.parametrize("value", [-1.0, math.nan])
def test_weights_below_zero(value: float) -> None:
    with pytest.raises(InvalidInputError, match="mask"):
        LossWeights(mask=value)
