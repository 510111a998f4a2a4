# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Makes docs/topics_and_parameters.md from the declarations: `python -m scripts.reference_page`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rt_panoptic_ros.frames.outputs import OUTPUTS
from rt_panoptic_ros.ros.node.node_settings import NodeSettings
from rt_panoptic_ros.settings import Change, PostprocessSettings, settings_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rt_panoptic_ros.frames.outputs import Output
    from rt_panoptic_ros.settings import Setting


TOPICS = {f"~/{output.name}": output.type for output in OUTPUTS.values()} | {
    "/diagnostics": "diagnostic_msgs/msg/DiagnosticArray"
}
"""{topic that the node publishes: its type}."""

_DIAGNOSTICS = (
    "Every second, `NODE: panoptic`: state, `engine` (model and backend), `fallback` (why "
    "it runs on the CPU where a GPU was to be expected), rate, frames by outcome, callbacks that "
    "failed, median and 95th percentile of every stage; while the model is loaded, what that is busy with. And for "
    "each camera `NODE: camera` (or `camera NAME`), a ledger: topic, input rate, period, age at arrival, time from "
    "arrival and from the stamp to the outputs, frames by outcome: received, processed, late (labelled later after "
    "arrival than the camera's period), dropped for a newer one, skipped beyond `max_rate_hz`, refused, failed, "
    "lost in transport; where depth or camera_info are needed, their topics and publishers, and frames located, "
    "without depth, misaligned, depth refused, uncalibrated, untransformed. A warning or error stays until three "
    "reports were free of it; lateness is one after three reports with more than half of the frames late, until three "
    "with less than a fifth. What keeps images from being labelled is a warning with its cause, and an error once it "
    "has kept all of a camera's results away for 30 s; so is another node of this one's name."
)

_HEAD = """# Topics and parameters

<!-- Made by `python -m scripts.reference_page`; a test compares it with the declarations. -->

## Subscribed

| topic | type | |
|---|---|---|
| `image` | sensor_msgs/msg/Image | rgb8, bgr8, mono8, rgba8, bgra8 as they lie; Bayer, YUV, 16-bit colours converted |
| `image/compressed` | sensor_msgs/msg/CompressedImage | instead, with `image_transport: compressed`: JPEG, PNG, TIFF |
| `camera_info` | sensor_msgs/msg/CameraInfo | the images' calibration, for outputs that need it |
| `depth` | sensor_msgs/msg/Image | likewise, aligned to the images: [three dimensions](three_dimensions.md) |

All of sensor_msgs' encodings that name colours or grey are taken: `rgb16` and the like, `mono16` (16 bits are scaled as
cv_bridge does), Bayer patterns, `uyvy` (`yuv422`), `yuyv` (`yuv422_yuy2`), `nv12`, `nv21`, `nv24`, and drivers' `i420`
and `yv12`. A compressed image's format says what it was: a Bayer pattern in a PNG gets its colours. Depth and other
number types (`16UC1`, `32FC1`, `8UC3`; but `8UC1` is grey), video, and images that are cut off are refused by name.

With `cameras: front=/front/image_raw,rear=/rear/image_raw`, those topics (or `TOPIC/compressed`) instead, with
`camera_info` and `depth` beside each, such as `/front/depth`: one loaded model serves all, and the cameras take turns.

A camera's images are received only while someone subscribes to one of its outputs (`lazy`). The newest image wins: the
middleware keeps it (depth 1; 2 for reliable ones, of which the last may still be arriving), the node another that waits
for its turn, and when that comes, a newer one in the middleware takes its place. One that waited in the node and gave
way is counted as dropped; one that gave way before is not counted: while the pipeline is behind, a camera is looked at
25 times a second and at its turns. An image that can't be used is counted as refused, and the log says why.

## Published

All outputs of an image carry its own stamp and frame id, bit for bit, so exact-time synchronisers work; each is made
only while someone subscribes to it. With `cameras`, all but the latched ones and `/diagnostics` are `~/NAME/semantic`
and so on for each camera.

"""


def reference_page() -> str:
    """Return the page's Markdown."""
    contents = [*map(_content, OUTPUTS.values()), _DIAGNOSTICS]
    rows = [
        f"| `{topic}` | {kind} | {content} |" for (topic, kind), content in zip(TOPICS.items(), contents, strict=True)
    ]
    lines = ["| topic | type | |", "|---|---|---|", *rows]
    page = _HEAD + "\n".join(lines) + "\n\n## Parameters of the node\n\n"
    page += _table([(one, one.change.value) for one in settings_of(NodeSettings)])
    page += (
        "\n## Parameters of post-processing\n\nDefaults are the model's own; those here hold where its card says "
        f"nothing. Changes are accepted {Change.LIVE.value}.\n\n"
    )
    page += _table([(one, "") for one in settings_of(PostprocessSettings)])
    return page + (
        "\n## Services\n\n| service | type | |\n|---|---|---|\n"
        "| `~/reset_tracking` | std_srvs/srv/Trigger | Forgets all objects; ids begin with 1 again. |\n"
        "| `~/enable` | std_srvs/srv/SetBool | false: receives and publishes nothing until true; the model stays. |\n"
        "\nA change out of range, or in a state where it isn't accepted, is refused with the reason. "
        "`launch/panoptic.launch.py` has all of them as arguments (`ros2 launch rt_panoptic_ros panoptic.launch.py "
        "--show-args`).\n"
    )


def _content(output: Output) -> str:
    if output.encoding:
        return f"{output.encoding}, {output.content}"
    conditions = []
    if output.optional:
        conditions.append(f"where {output.type.partition('/')[0]} is installed")
    if output.latched:
        conditions.append("latched, published when the node is activated")
    return f"{'; '.join(conditions).capitalize()}: {output.content}" if conditions else output.content


def _table(entries: Sequence[tuple[Setting, str]]) -> str:
    changing = any(change for _, change in entries)
    lines = [f"| name | default | values | |{' changes |' if changing else ''}"]
    lines.append(f"|---|---|---|---|{'---|' if changing else ''}")
    for info, change in entries:
        if info.choices:
            values = ", ".join(info.choices)
        elif info.minimum is not None:
            values = f"{info.minimum:g} to {info.maximum:g}"
        else:
            values = {bool: "true, false", str: "text"}.get(info.kind, info.kind.__name__)
        default = str(info.default).lower() if info.kind is bool else str(info.default)
        last = f" {change} |" if changing else ""
        lines.append(f"| `{info.name}` | {f'`{default}`' if default else ''} | {values} | {info.description} |{last}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    from pathlib import Path

    page = Path(__file__).resolve().parents[1] / "docs" / "topics_and_parameters.md"
    page.write_text(reference_page(), encoding="utf-8")
