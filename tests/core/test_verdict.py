"""The verdict over one attempt: whole tables."""

from __future__ import annotations

import pytest

from underlay.core.verdict import judge, judge_status
from underlay.telemetry.attributes import Ending, Verdict

SUCCESS, FAILURE, NOTHING = Verdict.SUCCESS, Verdict.FAILURE, Verdict.NOTHING


def test_a_status_says() -> None:
    """2xx speaks for the provider, 5xx but 501 and 505 against it, everything else says nothing."""
    said = {status: judge_status(status) for status in range(100, 600)}
    assert [status for status in said if said[status] is SUCCESS] == list(range(200, 300))
    assert {status for status in said if said[status] is FAILURE} == set(range(500, 600)) - {501, 505}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 413, 422, 429, 501, 505, 301])
def test_the_callers_own_trouble_never_counts(status: int) -> None:
    """Whatever the body says and however it ends, a 4xx is not the provider's failure, nor its success."""
    assert {
        judge(status, ending, error=error, blame=error) for ending in Ending for error in (False, True)
    } == {NOTHING}


@pytest.mark.parametrize("status", [500, 502, 503, 504, 529, 599])
def test_a_server_error_counts_however_its_body_ends(status: int) -> None:
    """A 5xx is a failure, also when the caller does not wait for its body."""
    assert {judge(status, ending, error=False, blame=False) for ending in Ending} == {FAILURE}


@pytest.mark.parametrize(
    ("ending", "verdict"),
    [
        (Ending.COMPLETE, SUCCESS),
        (Ending.TRUNCATED, FAILURE),
        (Ending.FAILED, NOTHING),
        (Ending.CLOSED, NOTHING),
        (Ending.CANCELLED, NOTHING),
        (Ending.DROPPED, NOTHING),
    ],
)
def test_a_200_is_judged_at_its_end(ending: Ending, verdict: Verdict) -> None:
    """A stream is not judged at its head: whole is success, cut is failure, left by the caller is nothing."""
    assert judge(200, ending, error=False, blame=False) is verdict


@pytest.mark.parametrize("ending", list(Ending))
@pytest.mark.parametrize(("blame", "verdict"), [(True, FAILURE), (False, NOTHING)])
def test_an_error_inside_a_200_is_no_success(ending: Ending, blame: bool, verdict: Verdict) -> None:
    """An error event in a 200 stream is a failure if it speaks against the provider, else it says nothing."""
    assert judge(200, ending, error=True, blame=blame) is verdict
