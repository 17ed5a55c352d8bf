"""`underlay run`: the program runs, unchanged, whatever happens to underlay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from underlay.cli import run as run_module
from underlay.cli.run import AUTO, child_environment, observing

INVOKE = Any
COMMAND = Any

FAKE_BOOT = """
import os
MARK = os.environ["MARK"]
def start():
    with open(MARK, "a") as file:
        file.write("started\\n")
    what = os.environ.get("FAKE", "")
    if what == "fault":
        raise RuntimeError("the prompt was: secret")
    if what == "settings":
        from underlay.errors import Problem, SettingsError
        raise SettingsError([Problem("llm_cache.ttl", "'x'", "a number", "environment X")])
    if what == "store":
        from underlay.errors import StoreError
        raise StoreError("a.db", "no such folder")
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Puts a `sitecustomize` chain in place whose `underlay.boot` only notes that it ran; gives the note's
    path.
    """
    import underlay

    package = tmp_path / "fake" / "underlay"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"__path__.append({str(Path(underlay.__file__).parent)!r})\n")
    (package / "boot.py").write_text(FAKE_BOOT)
    mark = tmp_path / "mark"
    monkeypatch.setenv("MARK", str(mark))
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    return mark


def _child(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A Python process as `underlay run` would start it."""
    environ = child_environment({**os.environ, **env})
    return subprocess.run(
        [sys.executable, *arguments], env=environ, capture_output=True, text=True, timeout=30, check=False
    )


def test_the_exit_code_and_the_streams_are_the_programs_own(command: COMMAND) -> None:
    """Output, error output and exit code pass unchanged."""
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"
    done = command("run", "--", sys.executable, "-c", code, UNDERLAY_DISABLED="1")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_a_signal_is_the_programs_own(command: COMMAND) -> None:
    """A program that dies of a signal is seen to die of it."""
    code = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
    done = command("run", "--", sys.executable, "-c", code, UNDERLAY_DISABLED="1")
    assert done.returncode == -signal.SIGTERM


def test_arguments_pass_untouched(command: COMMAND) -> None:
    """What stands behind the first -- is the program's, options and a second -- included."""
    code = "import sys; print(sys.argv[1:])"
    done = command(
        "run", "--", sys.executable, "-c", code, "--observe", "--", "-h", "", UNDERLAY_DISABLED="1"
    )
    assert done.stdout == "['--observe', '--', '-h', '']\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--", "no-such-program"), 127, "no-such-program: command not found"),
        (("--", "./plain.txt"), 126, "./plain.txt: permission denied"),
        (("--", "./empty"), 126, "./empty: exec format error"),
        (("--", ""), 127, "command not found"),
        ((), 2, "underlay run -- python app.py"),
        (("--",), 2, "underlay run -- python app.py"),
        (("python", "app.py"), 2, "underlay run -- python app.py"),
        (("--preset", "fast", "--", "python"), 2, "high_throughput"),
        (("--nonsense", "--", "python"), 2, "--nonsense"),
    ],
)
def test_what_cannot_run_ends_as_in_a_shell(
    command: COMMAND, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    """127 for what is not found, 126 for what cannot be executed, 2 for a wrong command line; one message
    on stderr.
    """
    (tmp_path / "plain.txt").write_text("text")
    (tmp_path / "empty").write_text("\x00\x01")
    (tmp_path / "empty").chmod(0o755)
    done = command("run", *arguments)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_help_needs_no_program(invoke: INVOKE) -> None:
    """`run --help` shows examples and the program's place."""
    result = invoke("run", "--help")
    assert result.exit_code == 0
    assert "[OPTIONS] -- COMMAND" in result.stdout


@pytest.mark.parametrize("arguments", [("python", "app.py"), ("--",), ("--preset", "fast", "--", "python")])
def test_a_wrong_command_line_runs_nothing(invoke: INVOKE, arguments: tuple[str, ...]) -> None:
    """The usage error comes before anything is executed."""
    assert invoke("run", *arguments).exit_code == 2


def test_preset_and_observe_become_variables(command: COMMAND) -> None:
    """The options reach the program as the variables that the settings read."""
    names = ("UNDERLAY_PRESET", "UNDERLAY_COALESCE__MODE", "UNDERLAY_LLM_CACHE__MODE")
    code = f"import os; print(*map(os.environ.get, {names}))"
    done = command(
        "run",
        "--observe",
        "--preset",
        "low_latency",
        "--",
        sys.executable,
        "-c",
        code,
        UNDERLAY_DISABLED="1",
        UNDERLAY_LLM_CACHE__ENABLED="no",
    )
    assert done.stdout == "low_latency observe None\n"


def test_observe_leaves_off_what_the_environment_switches_off() -> None:
    """Every pillar observes but those that a variable switches off."""
    changed = observing(
        {
            "UNDERLAY_LLM_BATCH__MODE": "OFF",
            "UNDERLAY_COALESCE__ENABLED": "false",
            "UNDERLAY_LLM_CACHE__MODE": "enforce",
        }
    )
    assert changed == {
        "UNDERLAY_LLM_CACHE__MODE": "observe",
        "UNDERLAY_PACING__MODE": "observe",
        "UNDERLAY_CIRCUIT_BREAKER__MODE": "observe",
    }


def test_our_folder_is_first_and_only_once() -> None:
    """PYTHONPATH keeps its entries, also when a program under `run` starts another."""
    once = child_environment({"PYTHONPATH": f"/a{os.pathsep}/b"})
    assert once["PYTHONPATH"].split(os.pathsep) == [str(AUTO), "/a", "/b"]
    assert child_environment(once) == once
    assert child_environment({})["PYTHONPATH"] == str(AUTO)


def test_without_exec_the_exit_code_is_still_the_programs(
    invoke: INVOKE, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a process cannot be replaced, the program is a child and its exit code is ours."""
    monkeypatch.setattr(run_module, "_NO_EXEC", True)
    assert invoke("run", "--", sys.executable, "-c", "raise SystemExit(9)").exit_code == 9
    assert invoke("run", "--", "no-such-program").exit_code == 127


def test_underlay_starts_before_the_program_and_leaves_the_path_alone(fake: Path) -> None:
    """It starts once, prints nothing, and the program's imports see no folder of ours."""
    done = _child("-c", f"import sys; print({str(AUTO)!r} in sys.path)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")
    assert fake.read_text() == "started\n"


def test_grandchildren_start_it_too(fake: Path) -> None:
    """A process that the program starts has underlay as well."""
    _child("-c", "import subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)")
    assert fake.read_text() == "started\n" * 2


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (
            "fault",
            "underlay: could not start: RuntimeError (UNDERLAY_DEBUG=1 shows where); "
            "the app runs without underlay\n",
        ),
        (
            "settings",
            "underlay: wrong setting: llm_cache.ttl = 'x' from environment X: allowed is a number; "
            "the app runs without underlay\n",
        ),
        (
            "store",
            "underlay: llm_cache.store: 'a.db' cannot be used: no such folder; "
            "the app runs without underlay\n",
        ),
    ],
)
def test_the_program_runs_whatever_happens_to_underlay(fake: Path, kind: str, said: str) -> None:
    """A fault of ours, a wrong setting or a store that cannot be opened is one line on stderr, without the
    fault's text, and the program runs.
    """
    done = _child("-c", "print('ran')", FAKE=kind)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran\n", said)


def test_debug_shows_the_traceback(fake: Path) -> None:
    """UNDERLAY_DEBUG=1 adds where the fault was."""
    done = _child("-c", "print('ran')", FAKE="fault", UNDERLAY_DEBUG="1")
    assert done.stdout == "ran\n"
    assert "RuntimeError" in done.stderr.splitlines()[-1]


def test_a_closed_stderr_is_no_fault(fake: Path) -> None:
    """With nowhere to say it, the program still runs."""
    environ = child_environment({**os.environ, "FAKE": "fault"})
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec '{sys.executable}' -c 'print(1)' 2>&-"],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "1\n"


def test_a_python_without_underlay_says_so(tmp_path: Path) -> None:
    """An interpreter that lacks the package runs the program and names itself."""
    environ = {"PYTHONPATH": str(AUTO), "PATH": os.environ["PATH"]}
    real = Path(sys.base_prefix) / "bin" / "python3"
    done = subprocess.run(
        [real, "-c", "print('ran')"], env=environ, capture_output=True, text=True, check=False
    )
    assert done.stdout == "ran\n"
    assert done.stderr.startswith("underlay: not installed for ")
    assert done.stderr.count("\n") == 1


def test_disabled_starts_nothing(fake: Path) -> None:
    """UNDERLAY_DISABLED=1 leaves underlay unimported."""
    done = _child("-c", "import sys; print('underlay' in sys.modules)", UNDERLAY_DISABLED="1")
    assert done.stdout == "False\n"
    assert not fake.exists()


def test_the_next_sitecustomize_runs_as_without_us(fake: Path, tmp_path: Path) -> None:
    """Another package's start-up file runs once, under its own name, before underlay; its fault is Python's
    to report.
    """
    other = tmp_path / "other"
    other.mkdir()
    (other / "sitecustomize.py").write_text(
        "import os\nopen(os.environ['MARK'], 'a').write(f'next {__name__}\\n')\nHERE = 1\n"
    )
    path = os.pathsep.join((str(other), os.environ["PYTHONPATH"]))
    done = _child("-c", "import sitecustomize; print(sitecustomize.HERE)", PYTHONPATH=path)
    assert (done.stdout, done.stderr) == ("1\n", "")
    assert fake.read_text() == "next sitecustomize\nstarted\n"
    (other / "sitecustomize.py").write_text("raise ValueError('theirs')\n")
    done = _child("-c", "print('ran')", PYTHONPATH=path)
    assert done.stdout == "ran\n"
    assert "Error in sitecustomize" in done.stderr
    assert "ValueError: theirs" in done.stderr
    assert fake.read_text().endswith("started\n")
