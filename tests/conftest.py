"""What every test needs of the process that it runs in, and how many such processes there are."""

import os
import signal

# Background jobs of a shell ignore Ctrl-C, and so would every program that a test starts to interrupt it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Before torch is imported: its threads that wait for each other must not take the cores of the tests beside.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def pytest_xdist_auto_num_workers() -> int:
    """-n auto: one more than cores, since tests wait for a quarter of their time, the slow ones for more."""
    return 1 + len(os.sched_getaffinity(0))
