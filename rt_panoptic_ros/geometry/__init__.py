"""Three dimensions from labels and depth: intrinsics, the organised cloud, the objects' boxes; no ROS."""
