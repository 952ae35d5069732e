"""The one exception that a user's mistake raises; the command lines print its text and exit with 2."""


class UserError(ValueError):
    """A mistake that the user can mend: the text names the value, what was expected and the way out."""
