# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""One bag's run: label its frames into the journal, write the new bag, put it in place."""

from __future__ import annotations

import shutil
import zlib
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from rosbags.serde import SerdeError

from rt_panoptic_ros.bags.bag import METADATA, SCRATCH, open_bag
from rt_panoptic_ros.bags.journal import FrameRecord, Journal
from rt_panoptic_ros.bags.located import FrameQueue, PendingFrame
from rt_panoptic_ros.bags.messages import frame_messages, message_store
from rt_panoptic_ros.bags.topics import plan_bag
from rt_panoptic_ros.bags.writing import is_made_of, publish_bag, write_bag
from rt_panoptic_ros.errors import InvalidInputError, first_line
from rt_panoptic_ros.frames.message_layout import decode_message, stamp_ns
from rt_panoptic_ros.frames.outputs import images_of, inputs_of
from rt_panoptic_ros.geometry.boxes import BoxFinder
from rt_panoptic_ros.labeller import FrameLabeller
from rt_panoptic_ros.pipeline import open_pipeline

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rt_panoptic_ros.bags.options import BagOptions
    from rt_panoptic_ros.bags.storage import Bag
    from rt_panoptic_ros.bags.topics import BagPlan, Camera
    from rt_panoptic_ros.bags.writing import Report

_JOURNAL, _FOLDER = "journal", "bag"  # in OUT.partial
_REASONS = 10  # that the summary tells


@dataclass(frozen=True, slots=True)
class BagSummary:
    """What came of one bag."""

    out: Path
    cameras: tuple[Camera, ...] = ()  # none where the bag was there already
    frames: int = 0
    resumed: int = 0  # of the frames, those that an earlier run had labelled
    skipped: Counter[tuple[str, str]] = field(default_factory=Counter)  # of the frames, by (topic, reason)
    missing: Counter[tuple[str, str]] = field(default_factory=Counter)  # outputs of frames, by (topic, why)
    backend: str = ""
    others: Mapping[str, str] = field(default_factory=dict)  # {topic with images: why it was not labelled}
    losses: Sequence[str] = ()  # what of the old bag could not be read

    @property
    def problem(self) -> str:
        """What makes the run a failure: no frame could be labelled, or none has an output; empty for a success."""
        if self.frames == 0:
            return ""
        labelled = self.frames - self.skipped.total()
        if not labelled:
            (topic, reason), _ = self.skipped.most_common(1)[0]
            return f"expected frames that can be labelled, all {self.frames} were skipped: {reason} (on {topic})"
        lacking, reasons = Counter[str](), dict[str, str]()  # by output
        for (topic, why), count in self.missing.most_common():
            output, _, reason = why.partition(": ")
            lacking[output] += count
            reasons.setdefault(output, f"{reason} (on {topic})")
        nowhere = [output for output, count in lacking.items() if count == labelled]
        return "; ".join(f"expected {name}, none of {labelled} frames has it: {reasons[name]}" for name in nowhere)

    def format(self) -> str:
        """Return the summary for eyes."""
        if not self.cameras:
            return f"{self.out}: there already, made with the same arguments"
        resumed = f", {self.resumed} of them by an earlier run" if self.resumed else ""
        lines = [f"{self.out}: {self.frames} frames{resumed}" + (f", {self.backend}" if self.backend else "")]
        lines += [f"  {camera.topic} -> {camera.prefix}" for camera in self.cameras]
        skipped = self.skipped.most_common()
        lines += [f"  skipped {count} frames: {reason} (on {topic})" for (topic, reason), count in skipped[:_REASONS]]
        if more := sum(count for _, count in skipped[_REASONS:]):
            lines.append(f"  skipped {more} frames for {len(skipped) - _REASONS} more reasons")
        missing = self.missing.most_common()
        lines += [f"  {count} frames without {why} (on {topic})" for (topic, why), count in missing[:_REASONS]]
        for reason in dict.fromkeys(self.others.values()):
            topics = ", ".join(topic for topic, why in self.others.items() if why == reason)
            lines.append(f"  not labelled, {reason}: {topics} (--images names what to label)")
        lines += [f"  lost: {loss}" for loss in self.losses]
        return "\n".join(lines)


def label_bag(source: Path, out: Path, options: BagOptions, report: Report) -> BagSummary:
    """Make `out`, a bag with the labels of `source`; go on where an earlier run with the same arguments ended.

    Args:
        source: A rosbag2 folder or a single storage file, whole or not.
        out: The new bag's folder; OUT.partial beside it holds what is not finished.
        options: What to do.
        report: Told of the progress.

    Raises:
        InvalidInputError: A bag that can't be read, an argument that doesn't fit it, or `out` is something else.
        UnavailableError: The backend, or a library, can't be had here.
    """
    _check_places(source, out, options)
    document = options.document(source)
    partial = out.with_name(f"{out.name}.partial")
    if not options.force and out.exists():
        if not is_made_of(out, document):
            raise InvalidInputError(
                f"expected a new place for the bag, got {out}, which exists and was not made with these arguments: "
                "choose another, or replace it with --force"
            )
        ours = (_JOURNAL, _FOLDER)
        if partial.is_dir() and all(path.name in ours or path.name.startswith(SCRATCH) for path in partial.iterdir()):
            shutil.rmtree(partial)  # the earlier run was killed before it could
        return BagSummary(out)
    with open_bag(source, partial) as bag:
        plan = plan_bag(bag, options)
        with Journal(partial / _JOURNAL, document, replace=options.force) as journal:
            resumed = sum(journal.counts)
            backend = _label_frames(bag, plan, journal, options, report)
            folder = partial / _FOLDER / out.name
            shutil.rmtree(folder.parent, ignore_errors=True)
            skipped, missing = write_bag(folder, bag, plan, journal, options, document, report)
            publish_bag(folder, out)
            frames = sum(journal.counts)
        losses = bag.losses.lines()
    shutil.rmtree(partial)
    return BagSummary(out, plan.cameras, frames, resumed, skipped, missing, backend, plan.others, losses)


def _label_frames(bag: Bag, plan: BagPlan, journal: Journal, options: BagOptions, report: Report) -> str:
    """Complete the journal and return what labelled the frames."""
    total = sum(bag.counts[channel] for channel in plan.labelled)
    with closing(open_pipeline(**options.pipeline)) as pipeline:  # the backend is opened with the first frame
        labeller = FrameLabeller(pipeline, options.model.label_map)
        there = dict(enumerate(journal.counts))
        for number, count in there.items():
            for record in journal.frames(number, -1) if count and options.tracking else ():
                labeller.tracker(number).restore(record.state)
        done = sum(there.values())
        report("labelling", done, total)
        finder = BoxFinder() if "detections_3d" in options.outputs else None
        first_infos = _first_infos(bag, plan)

        def append(number: int, record: FrameRecord) -> None:
            nonlocal done
            journal.append(number, record)
            done += 1
            report("labelling", done, total)

        queues = [
            FrameQueue(options, finder, first_infos.get(number), partial(append, number))
            for number in range(len(plan.cameras))
        ]
        for message in bag.messages({*plan.labelled, *plan.inputs}):
            if (given := plan.inputs.get(message.channel)) is not None:
                name, number = given
                (queues[number].add_depth if name == "depth" else queues[number].add_info)(message.data)
            if (labelled := plan.labelled.get(message.channel)) is None:
                continue
            pending = PendingFrame(None)  # it is in the journal
            if there.get(labelled, 0):
                there[labelled] -= 1
            else:
                message_type = bag.channels[message.channel].type_name
                pending = _label_frame(labeller, labelled, message.data, message_type, options)
            queues[labelled].add_frame(message.data, pending)
        for queue in queues:
            queue.end()
        return pipeline.describe() if pipeline.loaded else ""


def _first_infos(bag: Bag, plan: BagPlan) -> dict[int, bytes]:
    """Return {number of a camera: its first camera_info}, of those that outputs are made from."""
    infos: dict[int, bytes] = {}
    for place, (name, number) in plan.inputs.items():
        if name == "camera_info" and (message := next(bag.messages((place,)), None)) is not None:
            infos.setdefault(number, message.data)
    return infos


def _label_frame(
    labeller: FrameLabeller, camera: int, data: bytes, message_type: str, options: BagOptions
) -> PendingFrame:
    """Return what a camera's next image gives; one that is broken or not a camera's gives why it is skipped."""
    problem, outputs, frame, header = "", dict[str, memoryview](), None, None
    try:
        message: Any = message_store().deserialize_cdr(data, message_type)
        image = decode_message(message)
    except (InvalidInputError, SerdeError) as error:
        problem = first_line(error)
    else:
        header = message.header
        frame = labeller.label(
            image,
            stamp_ns(header),
            camera=camera,
            class_ids=options.model.wanted_classes,
            tracking=options.tracking,
            images=images_of(options.outputs),
            output_size=options.output_size,
        )
        outputs = frame_messages(options.outputs, frame, header, options.model.style)
    state = labeller.tracker(camera).state() if options.tracking else b""
    record = FrameRecord(zlib.crc32(data), problem, outputs, state)
    return PendingFrame(record, frame if inputs_of(options.outputs) else None, header)


def _check_places(source: Path, out: Path, options: BagOptions) -> None:
    if not source.exists():
        raise InvalidInputError(f"expected a bag, but {source} does not exist: check the path")
    old, new = source.resolve(), out.resolve()
    if old == new or old in new.parents or new in old.parents:
        raise InvalidInputError(
            f"expected the new bag outside the old one, got {out} and {source}: choose another place"
        )
    if options.force and out.exists() and not (out / METADATA).is_file():
        raise InvalidInputError(f"expected a bag to replace, got {out}, which is none: choose another place")
