"""Where the stack keeps things outside the repository: built servers, and its state and data."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

HOME_VARIABLE = "UNDERLAY_STACK_HOME"
BIN_VARIABLE = "UNDERLAY_STACK_BIN"


def stack_home(environ: Mapping[str, str] | None = None, platform: str = sys.platform) -> Path:
    """Return the folder of the stack's state, data, logs and secret (`UNDERLAY_STACK_HOME` moves it).

    Nothing is created. Default: `$XDG_STATE_HOME` or `~/.local/state`, on macOS `~/Library/Application
    Support`, on Windows `%LOCALAPPDATA%`, then `underlay/stack`.
    """
    env = os.environ if environ is None else environ
    if override := env.get(HOME_VARIABLE):
        return Path(override).expanduser().absolute()
    return (
        _base(env, platform, "XDG_STATE_HOME", ".local/state", "Application Support") / "underlay" / "stack"
    )


def stack_bin(environ: Mapping[str, str] | None = None, platform: str = sys.platform) -> Path:
    """Return the cache folder of built servers (`UNDERLAY_STACK_BIN` moves it). Nothing is created.

    Default: `$XDG_CACHE_HOME` or `~/.cache`, on macOS `~/Library/Caches`, on Windows `%LOCALAPPDATA%`, then
    `underlay/stack/bin`.
    """
    env = os.environ if environ is None else environ
    if override := env.get(BIN_VARIABLE):
        return Path(override).expanduser().absolute()
    return _base(env, platform, "XDG_CACHE_HOME", ".cache", "Caches") / "underlay" / "stack" / "bin"


def _base(env: Mapping[str, str], platform: str, xdg: str, unix: str, library: str) -> Path:
    """Return the platform's base folder; a relative XDG value is ignored, as its specification says."""
    home = Path(env["HOME"]) if env.get("HOME") else Path.home()
    if platform == "darwin":
        return home / "Library" / library
    if platform == "win32":
        return Path(env["LOCALAPPDATA"]) if env.get("LOCALAPPDATA") else home / "AppData" / "Local"
    named = Path(env.get(xdg, ""))
    return named if named.is_absolute() else home / unix
