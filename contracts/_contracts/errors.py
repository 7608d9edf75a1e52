"""Errors that end a command with one line instead of a traceback."""


class UserError(Exception):
    """Something the user can mend: one line that says what is wrong and what to do.

    Each package carries its own copy of this class, so a caller in another package recognises it by
    the attribute `exit_code`, not by its type.
    """

    exit_code = 1  # bad data, a missing or changed file, a full disk, a lock that is held


class UsageError(UserError):
    """The command line or the params are wrong; nothing was started."""

    exit_code = 2
