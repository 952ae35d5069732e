"""The rate control components: one file per choice, found by name."""
