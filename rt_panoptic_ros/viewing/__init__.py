"""Results before eyes, with Rerun: what is shown of a frame, and the window, page or file. Knows no ROS."""
