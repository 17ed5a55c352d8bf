"""Pure decisions, one file a question: `now` is an argument, results are frozen dataclasses; no clock, lock,
loop or socket."""
