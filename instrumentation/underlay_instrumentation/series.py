"""Label sets of the histogram points, made once per distinct set and shared by every point that has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from underlay.telemetry import attributes as a
from underlay.telemetry import spans
from underlay.telemetry.attributes import OTHER

if TYPE_CHECKING:
    from underlay.telemetry.attributes import BatchMode, BatchTrigger, CacheResult, TokenType
    from underlay.telemetry.events import CallStarted

__all__ = ["Labels", "Names", "Series", "SeriesTable", "batch_labels", "model_labels"]

Labels = dict[str, str | int]
"""A label set as instruments take it. Shared: nobody changes one after it was made."""

_SERIES_MAX = 512
_SETS_MAX = 512


class Names:
    """A bounded set of names: the first `limit` keep their own, later ones become `OTHER`. Names come from
    callers, so a typo could mint them."""

    __slots__ = ("_known", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        """Return `name` or `OTHER`."""
        known = self._known.get(name)
        if known is not None:
            return known
        if len(self._known) >= self._limit:
            return OTHER
        self._known[name] = name
        return name


class Series:
    """What the calls of one (provider, operation, model, address, port) share: span name, first attributes,
    label sets."""

    __slots__ = (
        "_base", "_batch_sets", "_call_sets", "_errors", "_models", "_token_sets", "attributes", "model",
        "name",
    )  # fmt: skip

    def __init__(self, started: CallStarted, models: Names, errors: Names) -> None:
        self._models = models
        self._errors = errors
        self.name = spans.CALL(operation=started.operation, model=started.model).strip()
        self.attributes = _present(
            {
                a.OPERATION.key: started.operation,
                a.PROVIDER.key: started.provider,
                a.REQUEST_MODEL.key: started.model,
                a.SERVER_ADDRESS.key: started.server_address,
                a.SERVER_PORT.key: started.server_port,
            }
        )
        self._base = _present({**self.attributes, a.REQUEST_MODEL.key: models(started.model)})
        self.model = model_labels(started.provider, started.model, models)
        self._batch_sets: dict[tuple[BatchMode, BatchTrigger], Labels] = {}
        self._call_sets: dict[tuple[str, CacheResult, BatchMode, str], Labels] = {}
        self._token_sets: dict[tuple[str, TokenType], Labels] = {}

    def call(self, response_model: str, result: CacheResult, mode: BatchMode, error: str = "") -> Labels:
        """Labels of the duration and chunk histograms; without `error` they are those of the chunk
        histograms."""
        key = (response_model, result, mode, error)
        labels = self._call_sets.get(key)
        if labels is None:
            labels = _present(
                {
                    **self._base,
                    a.RESPONSE_MODEL.key: self._models(response_model) if response_model else "",
                    a.CACHE_RESULT.key: str(result.value),
                    a.BATCH_MODE.key: str(mode.value),
                    a.ERROR_TYPE.key: self._errors(error) if error else "",
                }
            )
            if len(self._call_sets) < _SETS_MAX:
                self._call_sets[key] = labels
        return labels

    def token(self, response_model: str, kind: TokenType) -> Labels:
        """Labels of the token histogram."""
        key = (response_model, kind)
        labels = self._token_sets.get(key)
        if labels is None:
            labels = _present(
                {
                    **self._base,
                    a.RESPONSE_MODEL.key: self._models(response_model) if response_model else "",
                    a.TOKEN_TYPE.key: str(kind.value),
                }
            )
            if len(self._token_sets) < _SETS_MAX:
                self._token_sets[key] = labels
        return labels

    def batch(self, mode: BatchMode, trigger: BatchTrigger) -> Labels:
        """Labels of the histogram of waits in a window."""
        labels = self._batch_sets.get((mode, trigger))
        if labels is None:
            labels = self._batch_sets[mode, trigger] = batch_labels(self.model, mode, trigger)
        return labels


class SeriesTable:
    """All series of one listener, bounded: beyond the bound a series is made anew for each call, its labels
    already say `OTHER`."""

    __slots__ = ("_errors", "_series", "models")

    def __init__(self, max_models: int) -> None:
        self.models = Names(max_models)
        self._errors = Names(max_models)
        self._series: dict[tuple[str, str, str, str, int | None], Series] = {}

    def of(self, started: CallStarted) -> Series:
        """Return the series of a call."""
        key = (
            started.provider,
            started.operation,
            started.model,
            started.server_address,
            started.server_port,
        )
        series = self._series.get(key)
        if series is None:
            series = Series(started, self.models, self._errors)
            if len(self._series) < _SERIES_MAX:
                self._series[key] = series
        return series


def model_labels(provider: str, model: str, models: Names) -> Labels:
    """Labels of what is counted per (provider, model)."""
    return _present({a.PROVIDER.key: provider, a.REQUEST_MODEL.key: models(model)})


def batch_labels(model: Labels, mode: BatchMode, trigger: BatchTrigger) -> Labels:
    """Labels of what is counted per (provider, model) and kind of dispatch."""
    return {**model, a.BATCH_MODE.key: str(mode.value), a.BATCH_TRIGGER.key: str(trigger.value)}


def _present(labels: dict[str, str | int | None]) -> Labels:
    return {key: value for key, value in labels.items() if value is not None and value != ""}
