"""Programs beside the node: image player, output recorder, the demo."""
