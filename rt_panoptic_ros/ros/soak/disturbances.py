# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What a soak does to the node: a table of disturbances, and the seeded order in which they come."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from rt_panoptic_ros.frames.outputs import FRAME_OUTPUTS
from rt_panoptic_ros.ros import qos
from rt_panoptic_ros.ros.conversions import output_classes
from rt_panoptic_ros.ros.soak.cameras import BROKEN, WHOLE, SoakCamera
from rt_panoptic_ros.ros.soak.graph import TICK_S
from rt_panoptic_ros.settings import OVERLAY_OPACITY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from random import Random

    from rt_panoptic_ros.model.bundle import ModelBundle
    from rt_panoptic_ros.ros.soak.graph import Script, SoakGraph

STRETCH_S = 18.0
"""How long it is disturbed, at least: what has begun is brought to its end."""
SETTLE_S, CALM_S = 2.0, 10.0
"""How long the node is left alone before its calm counts, and how long it counts; a short soak has less."""

_FLOOD_HZ = 200.0
_LEAST_S, _MOST_S = 0.5, 2.5  # of one disturbance, and of the pause behind it
_VISITED = tuple(name for name in FRAME_OUTPUTS if name in output_classes())
_WRONG_SETTINGS: tuple[dict[str, Any], ...] = (
    {"score_threshold": 7.0},
    {"output_size": "huge"},
    {"object_classes": "unicorn"},
    {"model": "another"},  # not while active
    {"tracking": True, "palette": "none such"},  # all or nothing
)


def setting_changes(model: ModelBundle) -> tuple[tuple[dict[str, Any], dict[str, Any]], ...]:
    """Return pairs of settings that a node with this model can be given while it works, and those of before."""
    some = model.classes.names[model.classes.thing_ids[0]]
    stages = {"score_threshold": 0.6, "max_detections": 10}
    return (
        (stages, {name: model.settings.flat()[name] for name in stages}),
        ({"tracking": True}, {"tracking": False}),
        ({"output_size": "48x64"}, {"output_size": ""}),
        ({"object_classes": some, "mask_classes": some}, {"object_classes": "", "mask_classes": ""}),
        ({"max_rate_hz": 5.0}, {"max_rate_hz": 0.0}),
        ({"palette": "colorblind", "overlay_opacity": 0.9}, {"palette": "dataset", "overlay_opacity": OVERLAY_OPACITY}),
        ({"enabled_outputs": "detections"}, {"enabled_outputs": ",".join(FRAME_OUTPUTS)}),
    )


def camera_disturbances(graph: SoakGraph, random: Random) -> Mapping[str, Callable[[], Script]]:
    """Return {name: what befalls one camera}."""

    def befalls(begin: Callable[[SoakCamera], None]) -> Callable[[], Script]:
        def script() -> Script:
            camera = random.choice(graph.cameras)
            begin(camera)
            yield _while(random)
            camera.reset()

        return script

    return {
        **{f"a camera sends {kind}": befalls(partial(SoakCamera.send, kind=kind)) for kind in (*WHOLE[1:], *BROKEN)},
        "a camera is silent": befalls(partial(SoakCamera.pace, rate_hz=0.0)),
        "a camera floods": befalls(partial(SoakCamera.pace, rate_hz=_FLOOD_HZ)),
        "a camera restarts": befalls(SoakCamera.leave),
    }


def node_disturbances(
    graph: SoakGraph, random: Random, model: ModelBundle, label_map: Path
) -> Mapping[str, Callable[[], Script]]:
    """Return {name: what is done to the node itself, or to its outputs}; `label_map` is one that its model can have."""
    changes = setting_changes(model)

    def settings() -> Script:
        changed, back = random.choice(changes)
        yield from graph.set(changed)
        yield _while(random)
        yield from graph.set(back)

    def wrong_settings() -> Script:
        yield from graph.set(random.choice(_WRONG_SETTINGS), valid=False)

    def deactivation() -> Script:
        yield from graph.change("deactivate")
        yield _while(random)
        yield from graph.change("activate")

    def reload() -> Script:
        yield from graph.change("deactivate")
        yield from graph.change("cleanup")
        yield from graph.change("configure")
        yield from graph.change("activate")

    def labels_mapped() -> Script:
        for value in (str(label_map), ""):
            yield from graph.change("deactivate")
            yield from graph.set({"label_map": value})
            yield from graph.change("activate")
            yield _while(random)

    def refused_transition() -> Script:
        yield from graph.change(random.choice(("configure", "activate", "cleanup")), allowed=False)

    def pause() -> Script:
        yield from graph.enable(False)
        yield _while(random)
        yield from graph.enable(True)

    def visitor() -> Script:
        yield from graph.visit(random.sample(_VISITED, random.randint(1, len(_VISITED))), _while(random))

    def nobody_listens() -> Script:
        graph.stop_listening()
        yield _while(random)
        graph.listen()

    return {
        "settings change": settings,
        "wrong settings are refused": wrong_settings,
        "deactivated and activated": deactivation,
        "cleaned up and configured": reload,
        "a label map comes and goes": labels_mapped,
        "a wrong transition is refused": refused_transition,
        "disabled and enabled": pause,
        "tracking begins anew": graph.reset_tracking,
        "a listener comes and goes": visitor,
        "nobody listens": nobody_listens,
    }


def soak_script(graph: SoakGraph, random: Random, model: ModelBundle, label_map: Path, seconds: float) -> Script:
    """Start the node; then disturb it and its cameras, leave all in calm, and so on for some seconds."""
    yield from graph.wait_for_node()
    graph.listen()
    graph.enabled = graph.published = True
    yield from graph.change("configure")
    yield from graph.change("activate")
    end_s = time.monotonic() + seconds
    tables = camera_disturbances(graph, random), node_disturbances(graph, random, model, label_map)
    decks = [_shuffled(table, random) for table in tables]
    while (left_s := end_s - time.monotonic()) > 0:
        until_s = time.monotonic() + min(STRETCH_S, 0.6 * left_s)
        yield from _together(*(_disturb(graph, random, deck, until_s) for deck in decks))
        yield from _send_the_largest(graph)
        yield SETTLE_S
        graph.begin_calm()
        yield min(CALM_S, 0.2 * seconds)
        graph.calm = False


def _send_the_largest(graph: SoakGraph) -> Script:
    """Have every output of every camera's largest images published, as many as a topic keeps.

    A topic's history keeps room for its largest messages until the model is unloaded. Without this, it would be
    chance what all of them hold in calm, and memory would waver by more than a leak in an hour.
    """
    for camera in graph.cameras:
        camera.send("larger")
    yield from graph.want(_VISITED, 2 * qos.stream("reliable").depth / graph.cameras[0].calm_hz)
    for camera in graph.cameras:
        camera.reset()


def _shuffled(table: Mapping[str, Callable[[], Script]], random: Random) -> Iterator[tuple[str, Callable[[], Script]]]:
    """Give all of a table in a random order, then all in another: none is left out for long."""
    while True:
        yield from random.sample(list(table.items()), len(table))


def _disturb(
    graph: SoakGraph, random: Random, deck: Iterator[tuple[str, Callable[[], Script]]], until_s: float
) -> Script:
    while time.monotonic() < until_s:
        name, script = next(deck)
        graph.log(name)
        yield from script()
        graph.hindrance = name
        disturbances = graph.record.disturbances
        disturbances[name] = disturbances.get(name, 0) + 1
        yield _while(random)


def _while(random: Random) -> float:
    return random.uniform(_LEAST_S, _MOST_S)


def _together(*scripts: Script) -> Script:
    """Run scripts side by side."""
    due_s = dict.fromkeys(scripts, 0.0)
    while due_s:
        for script, when_s in list(due_s.items()):
            if time.monotonic() >= when_s:
                pause_s = next(script, None)
                if pause_s is None:
                    del due_s[script]
                else:
                    due_s[script] = time.monotonic() + pause_s
        yield TICK_S
