"""The two errors that users see, each of them one sentence."""


class UsageError(Exception):
    """Bad input by the user: the message is one sentence that says what to change. Exit code 2."""


class RunError(Exception):
    """A run cannot go on, though its input was good: the message says what happened and where. Exit code 1."""
