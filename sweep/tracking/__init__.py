"""A sweep's files -> MLflow: a parent run per sweep, a child run per trial, a prepared chart and table view.

Everything is derived from the files of the sweep folder, which stay the truth. `tracker` is what the driver
holds, `mirror` brings the server up to the files, `content` says what a run shows, `view` prepares the web
interface, and `client` is the only file of the project that knows MLflow's client.
"""

from sweep.tracking.tracker import Tracker, check_tracking, open_tracker

__all__ = ["Tracker", "check_tracking", "open_tracker"]
