"""Where a sweep's trials come from: the grid, or a search that asks Optuna which architecture to train next.

`source` is what the driver holds, `space` the architectures there are, `objectives` what is wanted of them,
`rungs` who may train on, and `study` the only file of the project that knows Optuna.
"""
