"""Decides what one attempt says about the provider: failure, success, or nothing.

Nothing is the verdict of everything that is not the provider's doing: the caller's own request (4xx), its
cancel, its close, a full connection pool. A 429 says that the provider is up and busy. 501 and 505 are about
the request.
"""

from __future__ import annotations

from underlay.telemetry.attributes import Ending, Verdict

__all__ = ["judge", "judge_status"]

_ABOUT_THE_REQUEST = frozenset((501, 505))

# Every attempt is judged, and a member is slow to reach through its class.
_SUCCESS, _FAILURE, _NOTHING = Verdict.SUCCESS, Verdict.FAILURE, Verdict.NOTHING
_COMPLETE, _TRUNCATED = Ending.COMPLETE, Ending.TRUNCATED


def judge_status(status: int) -> Verdict:
    """What the status line alone says."""
    if status >= 500:
        return _NOTHING if status in _ABOUT_THE_REQUEST else _FAILURE
    return _SUCCESS if 200 <= status < 300 else _NOTHING


def judge(status: int, ending: Ending, *, error: bool, blame: bool) -> Verdict:
    """What the whole attempt says. `error` and `blame` are the dialect's reading of an error inside the body:
    there was one, and it speaks against the provider."""
    if not 200 <= status < 300:
        return judge_status(status)
    if error:
        return _FAILURE if blame else _NOTHING
    if ending is _COMPLETE:
        return _SUCCESS
    return _FAILURE if ending is _TRUNCATED else _NOTHING
