"""Adapters of the client families, httpx and httpx2, sync and async. They convert and never decide.

`httpx_async.py` is written by hand; its three twins are generated from it by `scripts/generate_twins.py`.
"""
