"""The entropy model components: one file per choice, found by name."""
