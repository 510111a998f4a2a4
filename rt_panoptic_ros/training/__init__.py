"""Learning: targets, losses, recipes, the loop; torch."""
