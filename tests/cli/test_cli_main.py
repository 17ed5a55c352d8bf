"""The command line as a whole: start-up time, help, exit codes, colour, encoding."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from underlay import __version__
from underlay.cli import main
from underlay.cli.group import COMMANDS, cli
from underlay.cli.output import choose_color, clean, duration, fit, local_time, rfc3339, usd, usd_text

if TYPE_CHECKING:
    from pathlib import Path

INVOKE = Any
COMMAND = Any


def test_the_version_is_answered_without_click(command: COMMAND) -> None:
    """`--version` prints name and version, and imports nothing that it does not need."""
    code = (
        "import sys\nfrom underlay.cli import main\ntry: main(['--version'])\n"
        "finally: assert 'click' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"underlay {__version__}\n"


def test_help_loads_no_command_and_no_rich(command: COMMAND) -> None:
    """The list of commands is data: neither their modules nor rich nor any client is imported for it."""
    code = (
        "import sys\nfrom underlay.cli import main\ntry: main(['--help'])\nfinally:\n"
        " heavy = ('rich', 'httpx', 'httpx2', 'opentelemetry', 'underlay.cli.run')\n"
        " print([name for name in heavy if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples_first(invoke: INVOKE, name: str) -> None:
    """`-h` works everywhere, starts with the line of the list, then examples, in at most 40 lines."""
    result = invoke(name, "-h")
    assert result.exit_code == 0
    text = [line.strip() for line in result.stdout.splitlines()]
    assert " ".join(text[2:5]).startswith(COMMANDS[name].brief.rstrip("."))
    assert "Examples:" in text
    assert len(text) <= 40
    assert result.stdout == invoke(name, "--help").stdout


def test_every_command_is_called_what_the_list_calls_it() -> None:
    """The table of names and the commands agree, with their short helps."""
    context = cli.make_context("underlay", ["paths"])
    for name, entry in COMMANDS.items():
        found = cli.get_command(context, name)
        assert found is not None
        assert (found.name, found.get_short_help_str(200)) == (name, entry.brief)
    assert cli.get_command(context, "absent") is None
    assert cli.list_commands(context) == list(COMMANDS)


def test_a_wrong_word_names_the_nearest(invoke: INVOKE) -> None:
    """An unknown command is exit 2 and says which one may have been meant, or which there are."""
    result = invoke("tracez")
    assert result.exit_code == 2
    assert "Did you mean trace" in result.stderr
    assert "There are: run, " in invoke("zzzzzz").stderr


def _exit_of(arguments: list[str]) -> object:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


def test_a_wrong_setting_is_exit_2_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All faults of the settings are said, one a line."""
    monkeypatch.setenv("UNDERLAY_LLM_CACHE__TTL", "soon")
    monkeypatch.setenv("UNDERLAY_LLM_CACHE__MODE", "on")
    assert _exit_of(["config", "show"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" = ")[0] for line in lines] == [
        "error: wrong setting: llm_cache.mode",
        "error: wrong setting: llm_cache.ttl",
    ]


def test_a_missing_extra_is_exit_3_with_the_install_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is not installed is named with the command that installs it."""
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert _exit_of(["simulate", "--port", "0"]) == 3
    assert "pip install 'underlay[simulator]'" in capsys.readouterr().err


def test_ctrl_c_is_exit_130(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt ends without a traceback."""

    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "main", interrupted)
    assert _exit_of(["paths"]) == 130


def test_usage_errors_and_success_have_their_codes(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong option is 2, a done command 0, a no 1."""
    assert _exit_of(["paths", "--wrong"]) == 2
    assert _exit_of(["paths"]) == 0
    assert _exit_of(["trace", "last"]) == 1


def test_a_reader_that_leaves_early_is_no_failure(sample: Path) -> None:
    """`underlay … | head` ends quietly."""
    code = "import sys\nfrom underlay.cli import main\nsys.stdin.read()\nmain(['trace', 'last', '--json'])"
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    child.stdout.close()
    _, error = child.communicate("")
    assert (child.returncode, error) == (0, "")


@pytest.mark.parametrize(
    ("option", "environ", "terminal", "expected"),
    [
        ("always", {"NO_COLOR": "1"}, False, True),
        ("never", {"FORCE_COLOR": "1"}, True, False),
        ("auto", {}, True, True),
        ("auto", {}, False, False),
        ("auto", {"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
        ("auto", {"NO_COLOR": ""}, True, True),
        ("auto", {"FORCE_COLOR": "1"}, False, True),
        ("auto", {"CLICOLOR_FORCE": "1", "TERM": "dumb"}, False, True),
        ("auto", {"CLICOLOR_FORCE": "0"}, False, False),
        ("auto", {"TERM": "dumb"}, True, False),
    ],
)
def test_colour_follows_the_conventions(
    option: str, environ: dict[str, str], terminal: bool, expected: bool
) -> None:
    """The option rules, then NO_COLOR, FORCE_COLOR, CLICOLOR_FORCE, TERM, then the terminal."""
    assert choose_color(option, environ, terminal) is expected


def test_colour_never_reaches_a_file(command: COMMAND, sample: Path) -> None:
    """Into a pipe there is no escape sequence unless it was asked for."""
    assert "\x1b[" not in command("trace", "last").stdout
    assert "\x1b[" not in command("traces", NO_COLOR="1").stdout
    assert "\x1b[" in command("traces", "--color", "always").stdout


def test_an_encoding_without_line_drawing_gets_ascii(command: COMMAND, sample: Path) -> None:
    """On an ASCII terminal everything is ASCII and nothing fails."""
    done = command("trace", "last", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "`- " in done.stdout
    assert done.stdout.isascii()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 ms"), (0.0012, "1.20 ms"), (0.25, "250 ms"), (0.9994, "999 ms"), (0.9996, "1.00 s"),
     (59.99, "59.99 s"), (59.999, "1m 00s"), (3599, "59m 59s"), (3_600, "1h 00m"), (90_061, "25h 01m")],
)  # fmt: skip
def test_durations_are_short_and_unambiguous(seconds: float, text: str) -> None:
    """Each magnitude has its unit, and rounding never shows 60 seconds or 1000 ms."""
    assert duration(seconds) == text
    assert len(text) <= 8


@pytest.mark.parametrize(
    ("amount", "text"), [(0.0, "$0.0000"), (0.0001234, "$0.000123"), (1e-9, "<$0.000001"), (12.5, "$12.5000")]
)
def test_money_for_people(amount: float, text: str) -> None:
    """Small amounts keep their digits, and what is not nothing is never shown as nothing."""
    assert usd(amount) == text


def test_money_and_times_for_programs() -> None:
    """Dollars are decimal text without an exponent; moments are RFC 3339 in UTC."""
    assert usd_text(1.5e-7) == "0.00000015"
    assert usd_text(2.9399999999999996e-05) == "0.0000294"
    assert usd_text(None) is None
    assert rfc3339(1_795_536_000_123_456_789) == "2026-11-24T16:00:00.123456Z"


def test_moments_for_people_are_local(monkeypatch: pytest.MonkeyPatch) -> None:
    """People read their own zone."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    assert local_time(1_795_536_000_000_000_000) == "2026-11-25 01:00:00"


def test_foreign_text_is_made_harmless() -> None:
    """Control characters and what an encoding lacks become question marks; cuts count columns."""
    assert clean("a\x1b[2Jb\u202ec") == "a?[2Jb?c"
    assert clean("mö", "ascii") == "m?"
    assert clean("mö", "no-such-encoding") == "m?"
    assert fit("模型", 3, "~") == "模~"
    assert fit("ab", 4, "~", right=True) == "  ab"
    assert fit("abc", 0, "~") == ""


def test_paths_names_every_place(invoke: INVOKE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The telemetry files and the settings file are listed, with whether they are read or written."""
    settings = tmp_path / "underlay.toml"
    settings.write_text("[llm_cache]\nttl = 5\n")
    monkeypatch.setenv("UNDERLAY_CONFIG", str(settings))
    places = json.loads(invoke("paths", "--json").stdout)["paths"]
    assert [(item["path"], item["access"]) for item in places] == [
        (str(tmp_path / ".underlay" / "telemetry-*.jsonl"), "writes"),
        (str(settings), "reads"),
    ]
    assert f"{settings}\n  reads: settings" in invoke("paths").stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_completion_prints_a_script(invoke: INVOKE, shell: str) -> None:
    """Each shell's script is printed and nothing is installed."""
    result = invoke("completion", shell)
    assert result.exit_code == 0
    assert "_UNDERLAY_COMPLETE" in result.stdout
