"""Panels, one function each, one module a topic. A function takes the `Dialect` and returns a new builder
with neither id nor position: those belong to the dashboard that shows it."""
