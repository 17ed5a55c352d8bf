"""API dialects: one file each. What a request asks, where usage, errors and the terminal event are, how a
refusal looks."""
