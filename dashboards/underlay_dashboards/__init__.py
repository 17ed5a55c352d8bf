"""Dashboards made from the vocabulary: signals (PromQL) -> panels -> rows -> dashboards.

Needs the extra `dashboards` (grafana-foundation-sdk). Users need neither: the rendered JSON ships with
underlay. `python -m underlay_dashboards render` writes it.
"""
