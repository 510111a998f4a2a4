"""Labels recorded bags (rosbag2) without ROS: every frame, resumable, the same bytes each time."""
