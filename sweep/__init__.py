"""Plan, run and record sweeps of codec architectures."""
