"""The error that means: the input is wrong, and here is what to do about it."""


class T2VError(ValueError):
    """One sentence for the user: what was given, what is wanted, what to do."""
