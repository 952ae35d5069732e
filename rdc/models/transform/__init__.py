"""The transform components: one file per choice, found by name."""
