"""The errors that a user can mend; each message says what was expected, what came, and what to do."""


class RtPanopticError(Exception):
    """Base of all errors of this package that carry one clear sentence for the user."""


class InvalidInputError(RtPanopticError, ValueError):
    """A file, image, setting or argument is not what was expected."""


class UnavailableError(RtPanopticError, RuntimeError):
    """Something that the request needs (a package, a device, a library) is not on this machine."""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its kind where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)
