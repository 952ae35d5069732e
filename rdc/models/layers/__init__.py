"""Building blocks that more than one component uses."""
