"""What fork servers do once, before they fork, so that no trial has to: import this and everything is there.

It must not run any torch operation (sweep.forkserver says why).
"""

from rdc.lean_import import lean_compressai

lean_compressai()

import rdc.runtime  # noqa: E402
import rdc.trial  # noqa: E402
from rdc.spec import prepare  # noqa: E402

__all__ = ["rdc"]

prepare()
