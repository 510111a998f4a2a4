# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The errors that a user can mend; each message says what was expected, what came, and what to do."""

import importlib.util

_OUT_OF_MEMORY = (
    "out of memory", "not enough memory", "insufficient memory", "cannot allocate memory", "can't allocate memory",
    "failed to allocate", "bad_alloc", "bad allocation", "failed to serialize proto",
    "can't start new thread",
)  # fmt: skip
_MOST_CHARACTERS = 2000  # of a sentence: the names of all of COCO's classes are some of it


class RtPanopticError(Exception):
    """Base of all errors of this package that carry one clear sentence for the user.

    It stays one line of bearable length, whatever the texts of files and messages in it hold.
    """

    def __init__(self, sentence: str) -> None:
        """Take the sentence."""
        super().__init__(one_line(sentence))


class InvalidInputError(RtPanopticError, ValueError):
    """A file, image, setting or argument is not what was expected."""


class UnavailableError(RtPanopticError, RuntimeError):
    """Something that the request needs (a package, a device, a library) is not on this machine."""


class CancelledError(RtPanopticError):
    """Work was called off, by what `progress.observing` was given, before it was done."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, for which NumPy, OpenCV, Warp and each backend have their own.

    What has been allocated for the work that met it is free again once the error has been handled.
    """
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _OUT_OF_MEMORY)


def explained(error: BaseException) -> str:
    """Return the sentence that says what to do about an error: its own, or one where memory ran out."""
    if isinstance(error, RtPanopticError) or not is_out_of_memory(error):
        return str(error)
    return (
        f"expected more memory to be free, got '{first_line(error)}': take smaller images or a smaller network_size, "
        "or end other programs"
    )


def one_line(text: str) -> str:
    """Return a text as one line that can be printed, of bearable length."""
    if len(text) > _MOST_CHARACTERS:
        text = f"{text[: _MOST_CHARACTERS // 2]}[...]{text[-_MOST_CHARACTERS // 2 :]}"
    return printable(text)


def printable(text: str) -> str:
    """Return a text whose line breaks, escapes and other unprintable characters are spelled out."""
    return text if text.isprintable() else "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its kind where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def require_package(package: str, purpose: str, remedy: str | None = None) -> None:
    """Check that a package can be imported.

    Args:
        package: Its name for `import`.
        purpose: What it is needed for, such as "the average precision".
        remedy: What to do without it; None is to install it under the same name.

    Raises:
        UnavailableError: It is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise UnavailableError(
            f"expected the package {package} for {purpose}, it is not installed: {remedy or f'`pip install {package}`'}"
        )


def require(holds: bool, expected: str, got: object) -> None:
    """Check a value where that takes no more than one sentence.

    Args:
        holds: Whether it is as expected.
        expected: What it should be.
        got: What it is, and perhaps what to do.

    Raises:
        InvalidInputError: It is not.
    """
    if not holds:
        raise InvalidInputError(f"expected {expected}, got {got}")
