"""What every test needs of the process that it runs in."""

import signal

# Background jobs of a shell ignore Ctrl-C, and so would every program that a test starts to interrupt it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
