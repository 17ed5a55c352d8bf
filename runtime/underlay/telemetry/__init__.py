"""The vocabulary: metrics, attributes, span names and events, as data. Imports nothing outside the standard
library."""
