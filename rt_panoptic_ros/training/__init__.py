"""Learning: targets, losses, recipes, the loop, the ablation; torch."""
