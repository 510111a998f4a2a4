"""The plain twin: the network with concatenation and the published post-processing, as dense tensor algebra in torch.

Straightforward and vectorised, as one writes it from the paper; nothing is made slow on purpose. Every detection's mask
is made at full size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import warp as wp
from torch import Tensor
from torch.nn import functional

from rt_panoptic_ros.benchmark.measure import StageClock
from rt_panoptic_ros.network.head import GlobalConv2d
from rt_panoptic_ros.network.panoptic_network import InputNormalization, PanopticNetwork
from rt_panoptic_ros.records import STRIDES, DenseDetections, PanopticResult
from rt_panoptic_ros.training.boxes import offsets_to_boxes, paired_iou, suppress
from rt_panoptic_ros.training.targets import level_positions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rt_panoptic_ros.model.bundle import ModelBundle
    from rt_panoptic_ros.settings import PostprocessSettings


class _ConcatenatingConv2d(GlobalConv2d):
    """`GlobalConv2d` as the paper draws it."""

    def forward_levels(self, levels: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        upsampled = [functional.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in levels]
        return functional.conv2d(torch.cat(upsampled, dim=1), self.weight, self.bias, padding=1)


class PlainNetwork:
    """A bundle's network in torch, float32, with the five levels upsampled and concatenated."""

    def __init__(self, bundle: ModelBundle, device: str) -> None:
        """Load the weights."""
        network = PanopticNetwork(bundle.network, len(bundle.classes), len(bundle.classes.thing_ids))
        network.load_arrays(bundle.load_weights())
        for module in network.modules():
            if isinstance(module, GlobalConv2d):
                module.__class__ = _ConcatenatingConv2d
        self._network = network.eval().requires_grad_(False).to(device)
        self._device = device
        self._normalize = InputNormalization(bundle.input, device)

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> DenseDetections:
        """Return the outputs for an image (H, W, 3) uint8 RGB; they are ready when this returns."""
        pixels = torch.from_numpy(image).to(self._device).permute(2, 0, 1)
        outputs = self._network(self._normalize(pixels)[None])
        synchronize(self._device)

        def shared(tensor: Tensor) -> wp.array:
            return wp.from_torch(tensor[0].contiguous(), dtype=wp.float32)

        return DenseDetections(
            shared(outputs.semantic_logits),
            shared(outputs.levelness_logits),
            tuple(map(shared, outputs.box_class_logits)),
            tuple(map(shared, outputs.box_offsets)),
            tuple(map(shared, outputs.centerness_logits)),
        )


@torch.inference_mode()
def plain_postprocess(
    dense: DenseDetections, size: tuple[int, int], thing_ids: Sequence[int], settings: PostprocessSettings
) -> tuple[tuple[np.ndarray, np.ndarray], dict[str, float]]:
    """Return the semantic and the instance image of network outputs for an image of `size`, and the stages' ms."""
    device = str(dense.semantic_logits.device)
    clock = StageClock()
    boxes, labels = _query_boxes(dense, size, settings)
    synchronize(device)
    clock.end("query_boxes")
    logits = _torch(dense.semantic_logits)
    masks = _masks(dense, logits, size, boxes, labels, thing_ids, settings)
    synchronize(device)
    clock.end("masks")
    semantic, instance = _fuse(logits, masks, labels, size, thing_ids, settings)
    result = semantic.to(torch.uint8).cpu().numpy(), instance.cpu().numpy().astype(np.uint16)
    clock.end("fusion")
    return result, clock.stages_ms


def same_pixels(result: PanopticResult, plain: tuple[np.ndarray, np.ndarray]) -> float:
    """Return the share of pixels whose class and instance are the plain twin's."""
    return float(((result.semantic == plain[0]) & (result.instance == plain[1])).mean())


def synchronize(device: str) -> None:
    """Wait until `device` has finished."""
    if device != "cpu":
        torch.cuda.synchronize()


def _torch(array: wp.array) -> Tensor:
    tensor: Tensor = wp.to_torch(array)
    return tensor


def _query_boxes(dense: DenseDetections, size: tuple[int, int], settings: PostprocessSettings) -> tuple[Tensor, Tensor]:
    limits = settings.query_boxes
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for stride, class_logits, offsets, centerness in zip(
        STRIDES, dense.box_class_logits, dense.box_offsets, dense.centerness_logits, strict=True
    ):
        probability = _torch(class_logits).flatten(1).T.sigmoid()  # (L, T)
        places, labels = (probability > limits.pre_nms_threshold).nonzero().unbind(dim=1)
        scores = probability[places, labels] * _torch(centerness).flatten().sigmoid()[places]
        best = scores.sort(descending=True, stable=True).indices[: limits.pre_nms_top_k]
        places, labels, scores = places[best], labels[best], scores[best]
        xy = level_positions(offsets.shape[1], offsets.shape[2], stride, scores.device)[places].float()
        found.append((offsets_to_boxes(_torch(offsets).flatten(1).T[places], xy), scores, labels))
    boxes, scores, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
    boxes = torch.minimum(boxes.clamp(min=0), torch.tensor([size[1], size[0]] * 2, device=boxes.device) - 1)
    kept = suppress(boxes, scores, labels, limits.nms_threshold)
    boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
    kept = suppress(boxes, scores, torch.zeros_like(labels), limits.global_nms_threshold)[: limits.max_detections]
    above = kept[scores[kept] >= settings.fusion.score_threshold]
    return boxes[above], labels[above]


def _masks(
    dense: DenseDetections, logits: Tensor, size: tuple[int, int], boxes: Tensor, labels: Tensor,
    thing_ids: Sequence[int], settings: PostprocessSettings,
) -> Tensor:  # fmt: skip
    """Return the masks (n, H, W) bool (Eq. 5-7, 14)."""
    if not len(boxes):
        return torch.zeros((0, *size), dtype=torch.bool, device=boxes.device)
    assert dense.levelness_logits is not None
    levelness = _torch(dense.levelness_logits)
    grid = (levelness.shape[1], levelness.shape[2])
    level = levelness[1:].argmax(dim=0)
    offsets = torch.stack(
        [
            functional.interpolate(_torch(part)[None], size=grid, mode="bilinear", align_corners=False)[0]
            for part in dense.box_offsets
        ]
    ).gather(0, level[None, None].expand(1, 4, *grid))[0]  # (4, g, k)
    own = offsets_to_boxes(offsets.flatten(1).T, level_positions(*grid, 4, offsets.device).float())  # (g k, 4)
    agreement = _similarity(own[None], boxes[:, None], settings.masks.similarity).view(-1, *grid)
    classes = functional.interpolate(logits[None], size=grid, mode="bilinear", align_corners=False)[0].softmax(dim=0)
    probability = agreement * classes[torch.tensor(thing_ids, device=labels.device)[labels]]
    full = functional.interpolate(probability[None], scale_factor=4, mode="bilinear", align_corners=False)[0]
    return full[:, : size[0], : size[1]] >= settings.masks.mask_threshold


def _similarity(own: Tensor, query: Tensor, kind: str) -> Tensor:
    if kind == "iou":
        return paired_iou(own, query)
    sizes = torch.minimum(own[..., 2:], query[..., 2:]) - torch.maximum(own[..., :2], query[..., :2])
    common = sizes.clamp(min=0).prod(dim=-1)
    areas = [(box[..., 2:] - box[..., :2]).prod(dim=-1) for box in (own, query)]
    union = areas[0] + areas[1] - common
    hull = torch.maximum(own[..., 2:], query[..., 2:]) - torch.minimum(own[..., :2], query[..., :2])
    enclosing = hull.prod(dim=-1) + 1e-7
    return (common + 1) / (union + 1) - (enclosing - union) / enclosing


def _fuse(
    logits: Tensor, masks: Tensor, labels: Tensor, size: tuple[int, int], thing_ids: Sequence[int],
    settings: PostprocessSettings,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    full = functional.interpolate(logits[None], scale_factor=8, mode="bilinear", align_corners=False)[0]
    semantic = full[:, : size[0], : size[1]].argmax(dim=0)
    instance = torch.zeros(size, dtype=torch.int32, device=masks.device)
    count = 0
    for mask, label in zip(masks, labels.tolist(), strict=True):
        free = mask & (instance == 0)
        total, area = int(mask.sum()), int(free.sum())
        if area == 0 or total - area > settings.fusion.overlap_threshold * total:
            continue
        count += 1
        instance[free] = count
        semantic[free] = thing_ids[label]
    return semantic, instance
