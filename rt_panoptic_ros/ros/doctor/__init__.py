# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`rt-panoptic doctor`: looks at a running graph and says in plain words why nothing, or too little, arrives."""
