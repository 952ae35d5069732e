"""What fork servers do once, before they fork, so that no trial has to: import this and everything is there.

It must not run any torch operation (sweep.forkserver says why).
"""

import rdc.runtime
import rdc.trial
from rdc.spec import prepare

__all__ = ["rdc"]

prepare()
