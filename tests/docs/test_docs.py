"""Every Python block of the documentation runs, top to bottom of its page, in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from underlay.providers._bounds import COMPLETIONS, EMBEDDINGS
from underlay.providers.hosts import HOSTS
from underlay.simulator import Simulator

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")


def blocks(page: Path) -> list[str]:
    """The Python blocks of a page."""
    return BLOCK.findall(page.read_text())


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_every_python_block_runs(page: Path, tmp_path: Path) -> None:
    """A reader who types a page's blocks in their order gets no error."""
    script = tmp_path / "page.py"
    script.write_text("\n\n".join(blocks(page)))
    with Simulator() as simulator:
        environment = os.environ | {
            "OPENAI_BASE_URL": f"{simulator.url}/v1",
            "OPENAI_API_KEY": "any",
            "ANTHROPIC_BASE_URL": simulator.url,
            "ANTHROPIC_API_KEY": "any",
        }
        done = subprocess.run(
            [sys.executable, str(script)],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    """A relative link names a file that is there."""
    missing = [target for target in LINK.findall(page.read_text()) if not (page.parent / target).exists()]
    assert not missing


_NAMES = {
    "OpenAI": "openai",
    "Azure OpenAI": "azure.ai.openai",
    "Mistral": "mistral_ai",
    "Gemini (its OpenAI endpoint)": "gcp.gemini",
    "Voyage": "voyageai",
    "Fireworks": "fireworks_ai",
    "Novita": "novita",
    "any other provider or host": "",
}


def test_the_limits_of_merged_requests_are_those_in_force() -> None:
    """The table that tells how much one request may hold has every provider's numbers."""
    page = (ROOT / "docs" / "batching.md").read_text()
    told: dict[str, tuple[int, int]] = {}
    for names, inputs, tokens in re.findall(r"^\| ([^|]+) \| ([\d,]+) \| ([\d,]+) \|$", page, re.MULTILINE):
        limits = (int(inputs.replace(",", "")), int(tokens.replace(",", "")))
        told |= {_NAMES[name.strip()]: limits for name in names.split(", ")}
    assert told == EMBEDDINGS
    assert "{:,} prompts and {:,} tokens".format(*COMPLETIONS[""]) in page
    assert set(EMBEDDINGS) - {"", "azure.ai.openai"} <= set(HOSTS.values())


def test_every_page_can_be_found_from_the_first_one() -> None:
    """The README links to each page of the documentation."""
    linked = set(LINK.findall((ROOT / "README.md").read_text()))
    assert {f"docs/{page.name}" for page in PAGES[1:]} <= linked
