"""The ROS 2 side: message conversions, parameters, diagnostics and the nodes. Importing this package needs no ROS."""
