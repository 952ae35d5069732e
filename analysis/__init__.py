"""Tables, frontiers, BD-rates and plots from finished trials; needs no torch."""
