"""Pictures for eyes: overlays, labels, palettes."""
