"""The gating components: one file per choice, found by name."""
