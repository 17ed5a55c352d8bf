"""One table of versions, and everybody reads it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import yaml
from stack_fakes import ROOT

from underlay.stack import StackError, bundle_root, read_pins

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COMPOSE = (ROOT / "docker-compose.observability.yml").read_text(encoding="utf-8")
DOCS = (ROOT / "docs" / "stack.md").read_text(encoding="utf-8")


def test_the_table_holds_exactly_the_known_pins() -> None:
    """The pins read from the table, written out again, are the table."""
    table = (ROOT / "observability" / "versions.env").read_text(encoding="utf-8")
    lines = {line for line in table.splitlines() if line and not line.startswith("#")}
    assert lines == {f"{name}={value}" for name, value in read_pins().environment().items()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text + "UNDERLAY_JAEGER_VERSION=2.13.0\n", "is not one new pin"),
        (lambda text: text.replace("=2.13.0", "=latest"), "is not one new pin"),
        (
            lambda text: text.replace("UNDERLAY_JAEGER_VERSION=2.13.0\n", ""),
            "missing pins ['UNDERLAY_JAEGER_VERSION']",
        ),
        (lambda text: text + "UNDERLAY_TEMPO_VERSION=3.0.0\n", "unknown pins ['UNDERLAY_TEMPO_VERSION']"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, change: Callable[[str], str], words: str) -> None:
    """A pin that is repeated, no version, missing or unknown is an error that names it."""
    file = tmp_path / "versions.env"
    file.write_text(
        change((ROOT / "observability" / "versions.env").read_text(encoding="utf-8")), encoding="utf-8"
    )
    with pytest.raises(StackError, match=re.escape(words)):
        read_pins(file)


def test_compose_takes_every_tag_from_the_table() -> None:
    """No image of the compose file has a tag of its own, and each tag variable is a pin."""
    tags = {service["image"].partition(":")[2] for service in yaml.safe_load(COMPOSE)["services"].values()}
    names = {re.fullmatch(r"v?\$\{(\w+):\?[^}]+\}", tag)[1] for tag in tags}  # type: ignore[index]
    assert names == {f"UNDERLAY_{part}_VERSION" for part in ("COLLECTOR", "PROMETHEUS", "JAEGER", "GRAFANA")}
    assert names <= set(read_pins().environment())


def test_nothing_but_the_table_states_a_version() -> None:
    """The files that users get and the code that reads them repeat no pinned version."""
    files = [ROOT / "docker-compose.observability.yml", ROOT / "scripts" / "build_stack.py"]
    files += [
        path for path in (ROOT / "observability").rglob("*") if path.is_file() and path.name != "versions.env"
    ]
    files += (ROOT / "runtime" / "underlay" / "stack").glob("*.py")
    for file in files:
        text = file.read_text(encoding="utf-8")
        for name, version in read_pins().environment().items():
            assert version not in text, f"{file} repeats {name}={version}"


def test_the_docs_state_the_pinned_versions() -> None:
    """The table of docs/stack.md has a row for each server with the image's tag and the module's version."""
    pins = read_pins()
    rows = [
        f"| Collector | `otel/opentelemetry-collector-contrib:{pins.collector}` | v{pins.collector} |",
        f"| Prometheus | `prom/prometheus:v{pins.prometheus}` | v{pins.prometheus_module} |",
        f"| Jaeger | `jaegertracing/jaeger:{pins.jaeger}` | v{pins.jaeger_module} |",
        f"| Grafana | `grafana/grafana:{pins.grafana}` | not built |",
    ]
    for row in rows:
        assert row in DOCS


def test_the_bundle_is_found_in_a_wheel_and_in_a_checkout(tmp_path: Path) -> None:
    """The wheel's own copy wins, a checkout around the package serves else, and neither is a clear error."""
    package = tmp_path / "runtime" / "underlay"
    package.mkdir(parents=True)
    with pytest.raises(StackError, match="reinstall underlay"):
        bundle_root(package)
    for root in (tmp_path, package / "_bundle"):
        (root / "observability").mkdir(parents=True)
        (root / "docker-compose.observability.yml").touch()
        assert bundle_root(package) == root
