"""What can go wrong with the bundled stack, as errors whose text is the whole help a user needs."""

from __future__ import annotations

from underlay.errors import UnderlayError


class StackError(UnderlayError):
    """The stack could not do what was asked; the message says what happened and what to do about it."""


class NothingToRunWithError(StackError):
    """Neither a container engine that answers nor a full set of native servers was found."""


class PortTakenError(StackError):
    """A port the stack needs is in use; the message names the port and the variable that moves it."""


class NotReadyError(StackError):
    """A server was started and died, or did not answer its health endpoint before the deadline."""
