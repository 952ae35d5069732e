"""The one exception that a user's mistake raises; the command line prints its text and exits with 2."""


class AnalysisError(ValueError):
    """A mistake that the user can mend: the text names the value, what was expected and the way out."""
