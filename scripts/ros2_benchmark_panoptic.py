# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Measures the node as NVIDIA's ros2_benchmark measures others: peak rate, fixed rates, latency, jitter, resources.

    launch_test scripts/ros2_benchmark_panoptic.py [bag_topic:=/camera/image_raw] [model:=PATH backend:=tensorrt ...]

Arguments are those of panoptic.launch.py, and `bag_topic`, the bag's images. The bag is the r2b dataset's r2b_storage
below its assets; ROS2_BENCHMARK_OVERRIDE_INPUT_DATA_PATH=/path/to/bag in the environment takes another one, and
every other setting of ros2_benchmark has such a variable too.

The graph: DataLoaderNode reads the bag, PlaybackNode keeps its first images in memory and plays them at a given rate,
the node labels them in a process of its own (being Python, it can't be loaded into the container), and a MonitorNode
for each output notes when its messages arrive, serialised. So a latency spans both crossings between processes, as in a
robot. PlaybackNode numbers the images in the seconds of their stamps; the outputs have the same stamps, so that each is
matched with its image although the node leaves images out that it has no time for, which count as missed.
"""

from typing import Any

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description import LaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import ComposableNodeContainer
from launch_ros.descriptions import ComposableNode
from rclpy.wait_for_message import wait_for_message
from ros2_benchmark import (
    BasicPerformanceCalculator,
    MonitorPerformanceCalculatorsInfo,
    ROS2BenchmarkConfig,
    ROS2BenchmarkTest,
)
from std_msgs.msg import String

from rt_panoptic_ros.frames.outputs import OUTPUTS
from rt_panoptic_ros.resources import share_directory
from rt_panoptic_ros.ros import qos

NODE = "panoptic_node"
MONITORED = ("semantic", "detections")
"""Outputs; the first one's figures decide what rate the node sustains."""
LOADING_S = 600.0
"""For the model: TensorRT may build its engine before."""


def generate_test_description() -> LaunchDescription:
    """Return the node under test and the container that feeds and watches it."""
    namespace = TestPanopticNode.generate_namespace()

    def component(kind: str, *remappings: tuple[Any, str], number: str = "", **parameters: object) -> ComposableNode:
        return ComposableNode(
            package="ros2_benchmark",
            plugin=f"ros2_benchmark::{kind}",
            name=f"{kind}{number}",
            namespace=namespace,
            parameters=[parameters],
            remappings=list(remappings),
        )

    loader = component("DataLoaderNode", (LaunchConfiguration("bag_topic"), "buffer/image"))
    playback = component(
        "PlaybackNode", ("buffer/input0", "buffer/image"), ("input0", "image"), data_formats=["sensor_msgs/msg/Image"]
    )
    monitors = [
        component(
            "MonitorNode", ("output", f"{NODE}/{output}"),
            number=str(index), monitor_index=index, monitor_data_format=OUTPUTS[output].type,
        )
        for index, output in enumerate(MONITORED)
    ]  # fmt: skip
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(share_directory() / "launch" / "panoptic.launch.py")),
        launch_arguments={"namespace": namespace, "node_name": NODE, "image_topic": f"{namespace}/image"}.items(),
    )
    container = ComposableNodeContainer(
        package="rclcpp_components",
        executable="component_container_mt",
        name="container",
        namespace=namespace,
        composable_node_descriptions=[loader, playback, *monitors],
        output="screen",
    )
    bag_topic = DeclareLaunchArgument(
        "bag_topic", default_value="hawk_0_left_rgb_image", description="Topic of the bag's images, without leading /."
    )
    # The node first: its launch file sets the transport's profile for large images, for the container as well.
    return ROS2BenchmarkTest.generate_test_description([bag_topic, node, container])


class TestPanopticNode(ROS2BenchmarkTest):  # type: ignore[misc]
    """Finds the rate that the node sustains, then measures at that rate and at fixed ones."""

    config = ROS2BenchmarkConfig(
        benchmark_name="rt_panoptic_ros PanopticNode Benchmark",
        input_data_path="datasets/r2b_dataset/r2b_storage",
        publisher_lower_frequency=2.0,
        publisher_upper_frequency=200.0,
        binary_search_acceptable_frame_rate_drop=2.0,
        linear_scan_step_size=2.0,
        linear_scan_acceptable_frame_rate_drop=2.0,
        additional_fixed_publisher_rate_tests=[10.0, 15.0, 30.0],
        playback_message_buffer_size=30,
        revise_timestamps_as_message_ids=True,
        monitor_info_list=[
            MonitorPerformanceCalculatorsInfo(
                f"monitor_node{index}",
                [BasicPerformanceCalculator({"report_prefix": output, "message_key_match": True})],
            )
            for index, output in enumerate(MONITORED)
        ],
        custom_report_info={"node": NODE, "outputs": list(MONITORED)},
    )

    def pre_benchmark_hook(self) -> None:
        """Wait until the node is active, which it tells by publishing its classes."""
        topic = self.generate_namespace(NODE, "class_names")
        active, _ = wait_for_message(String, self.node, topic, qos_profile=qos.latched(), time_to_wait=LOADING_S)
        if not active:
            self.fail(f"expected {NODE} to be active within {LOADING_S:g} s, but {topic} is silent: see its log above")

    def test_benchmark(self) -> None:
        """Measure, and write the report."""
        self.run_benchmark()
