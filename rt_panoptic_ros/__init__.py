"""Real-time panoptic segmentation from dense detections (Hou et al., CVPR 2020) for ROS 2 robots."""
