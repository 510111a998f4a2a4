"""The subcommands of `rt-panoptic`, thin functions by subject; heavy modules load only where needed."""
