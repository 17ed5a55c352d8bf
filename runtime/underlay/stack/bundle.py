"""Where the files of the bundled stack are: in an installed wheel, or in a checkout of the repository.

The wheel carries the compose file, `observability/` and `dashboards/rendered/` under `underlay/_bundle/`,
with the layout of the repository, so that one set of relative paths serves both.
"""

from __future__ import annotations

from pathlib import Path

from underlay.stack.errors import StackError

COMPOSE_FILE = "docker-compose.observability.yml"


def bundle_root(package_dir: Path | None = None) -> Path:
    """Return the folder that holds the compose file and `observability/`.

    `package_dir` is the folder of the `underlay` package (default: the one that is running). Raises
    `StackError` when neither the wheel's `_bundle` nor a checkout around the package has the files.
    """
    package = package_dir if package_dir is not None else Path(__file__).resolve().parent.parent
    candidates = (package / "_bundle", package.parent.parent)
    for candidate in candidates:
        if (candidate / COMPOSE_FILE).is_file() and (candidate / "observability").is_dir():
            return candidate
    looked = " and ".join(str(candidate) for candidate in candidates)
    raise StackError(f"the stack's files are missing: no {COMPOSE_FILE} in {looked}; reinstall underlay")


def compose_file(root: Path | None = None) -> Path:
    """Return the path of the compose file."""
    return (root or bundle_root()) / COMPOSE_FILE


def config_dir(root: Path | None = None) -> Path:
    """Return `observability/`: the configuration that both the containers and the native servers read."""
    return (root or bundle_root()) / "observability"


def dashboards_dir(root: Path | None = None) -> Path:
    """Return the folder of rendered dashboards; a checkout where none were rendered may lack it."""
    return (root or bundle_root()) / "dashboards" / "rendered"
