"""Flags are read as cobra and pflag read them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import click
import pytest

from conforma.cli.command import Flag, read_flags
from conforma.cli.gotypes import Duration, GoBool, GoDuration, GoFloat, GoInt, GoList
from conforma.cli.root import run
from conforma.errors import InputError
from conforma.report.formats import FORMATS

FLAGS: list[click.Parameter] = [
    Flag(["--strict", "-s"], type=GoBool(), default=True),
    Flag(["--json", "-j", "as_json"], type=GoBool()),
    Flag(["--policy", "-p"], default=""),
    Flag(["--output"], type=GoList(), default=()),
    Flag(["--timeout"], type=GoDuration(), default=Duration(300)),
    Flag(["--workers"], type=GoInt(), default=5),
    Flag(["--factor"], type=GoFloat(), default=2.0),
    Flag(["--trace"], type=GoList(), default=("none",), bare="log"),
]


@pytest.mark.parametrize(
    ("args", "values", "words"),
    [
        ("--strict=false", {"strict": False}, []),
        ("--strict=F -s", {"strict": True}, []),
        ("--strict false", {"strict": True}, ["false"]),
        ("-sj", {"strict": True, "as_json": True}, []),
        ("-sj=0", {"strict": True, "as_json": False}, []),
        ("-pfile", {"policy": "file"}, []),
        ("-p=file", {"policy": "file"}, []),
        ("-p file x", {"policy": "file"}, ["x"]),
        ("-spfile", {"strict": True, "policy": "file"}, []),
        ("--policy= --strict", {"policy": "", "strict": True}, []),
        ("--policy -x", {"policy": "-x"}, []),
        ("--policy=a=b", {"policy": "a=b"}, []),
        ("a --strict b", {"strict": True}, ["a", "b"]),
        ("--strict -- --policy x", {"strict": True}, ["--policy", "x"]),
        ("- --strict", {"strict": True}, ["-"]),
        ("--output a,b --output c", {"output": ("a", "b", "c")}, []),
        ('--output "k=a,b",c', {"output": ("k=a,b", "c")}, []),
        ("--trace", {"trace": ("log",)}, []),
        ("--trace=opa,cpu x", {"trace": ("opa", "cpu")}, ["x"]),
        ("--workers 0x10", {"workers": 16}, []),
        ("--workers=-2", {"workers": -2}, []),
        ("--factor 1.5", {"factor": 1.5}, []),
        ("--timeout 1h30m", {"timeout": 5400.0}, []),
    ],
)
def test_reads(args: str, values: dict[str, Any], words: list[str]) -> None:
    assert read_flags(FLAGS, args.split(" "), {}) == (values, words)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--polcy x", "unknown flag: --polcy"),
        ("--polcy=x", "unknown flag: --polcy"),
        ("-x", "unknown shorthand flag: 'x' in -x"),
        ("-sx", "unknown shorthand flag: 'x' in -sx"),
        ("--policy", "flag needs an argument: --policy"),
        ("-p", "flag needs an argument: 'p' in -p"),
        ("--=x", "bad flag syntax: --=x"),
        (
            "--strict=maybe",
            'invalid argument "maybe" for "-s, --strict" flag: '
            'strconv.ParseBool: parsing "maybe": invalid syntax',
        ),
        (
            "--workers x",
            'invalid argument "x" for "--workers" flag: '
            'strconv.ParseInt: parsing "x": invalid syntax',
        ),
        (
            "--workers 99999999999999999999",
            'invalid argument "99999999999999999999" for "--workers" flag: '
            'strconv.ParseInt: parsing "99999999999999999999": value out of range',
        ),
        (
            "--factor x",
            'invalid argument "x" for "--factor" flag: '
            'strconv.ParseFloat: parsing "x": invalid syntax',
        ),
        (
            "--timeout 5",
            'invalid argument "5" for "--timeout" flag: time: missing unit in duration "5"',
        ),
        (
            "--timeout 5x",
            'invalid argument "5x" for "--timeout" flag: time: unknown unit "x" in duration "5x"',
        ),
        (
            "--timeout soon",
            'invalid argument "soon" for "--timeout" flag: time: invalid duration "soon"',
        ),
        ("--strict=x --polcy", 'invalid argument "x" for "-s, --strict" flag: '),
    ],
)
def test_words_what_is_wrong_as_pflag_does(args: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_flags(FLAGS, args.split(" "), {})
    assert caught.value.message.startswith(message)
    assert caught.value.exit_status == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("5m", "5m0s"),
        ("168h", "168h0m0s"),
        ("1h30m", "1h30m0s"),
        ("300ms", "300ms"),
        ("1.5s", "1.5s"),
        ("90s", "1m30s"),
        ("0", "0s"),
        ("-2s", "-2s"),
        ("1500us", "1.5ms"),
        ("10ns", "10ns"),
    ],
)
def test_durations_print_as_in_go(text: str, shown: str) -> None:
    assert str(GoDuration().read(text, None)) == shown


def test_global_flags_stand_before_or_after_the_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for args in (
        ["--timeout", "1m", "version", "--short"],
        ["version", "--timeout", "1m", "--short"],
        ["version", "--short", "--timeout=1m"],
    ):
        assert run(args) == 0
        assert capsys.readouterr().out.startswith("v")


def test_a_flag_of_the_command_may_stand_before_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--json=true", "version"]) == 0
    assert capsys.readouterr().out.startswith('{"Version":"v')


def test_flags_that_all_commands_of_a_group_have_may_stand_before_its_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    policy = "--policy={sources: [{policy: [oci::registry.test/policy]}]}"
    conforms = "Policy configuration conforms to the EnterpriseContractPolicy spec\n"
    for before in ("--quiet", "--show-successes", "--show-warnings=false", "--trace"):
        assert run(["validate", before, "policy", policy]) == 0
        assert capsys.readouterr().out == conforms
    assert run(["validate", "policy", "--show-policy-docs-link", policy]) == 0
    assert capsys.readouterr().out == conforms
    assert run(["validate", "policy", "--help"]) == 0
    assert "--show" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (["--nope"], "Error: unknown flag: --nope\n"),
        (["version", "--nope"], "Error: unknown flag: --nope\n"),
        (["validate", "image", "--nope"], "Error: unknown flag: --nope\n"),
        (
            ["verson"],
            'Error: unknown command "verson" for "conforma"\nhint: did you mean "version"?\n',
        ),
        (
            ["validate", "images"],
            'Error: unknown command "images" for "conforma validate"\n'
            'hint: did you mean "image"?\n',
        ),
        (["--timeout=\x1b[31m", "version"], 'invalid argument "\\x1b[31m" for "--timeout"'),
    ],
)
def test_errors_are_one_line_on_stderr(
    args: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(args) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert error in captured.err and "\x1b" not in captured.err


def modules_after(*args: str) -> set[str]:
    """The modules a command has loaded when it is done."""
    program = (
        "import sys; from conforma.cli.root import run; "
        f"status = run({list(args)!r}); print('\\n'.join(['MODULES', *sys.modules])); "
        "sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(done.stdout.partition("MODULES\n")[2].split())


HEAVY = {
    "httpx", "sigstore", "cryptography", "rich", "jsonschema", "yaml", "diskcache", "tuf", "msgspec",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "args",
    [("version",), ("--help",), ("validate", "--help"), ("validate", "image", "--help")],
    ids=" ".join,
)
def test_asking_for_help_or_the_version_loads_nothing_heavy(args: tuple[str, ...]) -> None:
    loaded = modules_after(*args)
    assert not HEAVY & loaded
    own = {name for name in loaded if name.startswith("conforma.")}
    assert not {
        name for name in own if name.split(".")[1] not in ("cli", "errors", "gotext", "gojson")
    }


def test_help_names_every_format_of_a_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", "image", "--help"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    listed = words.partition("Formats: ")[2].partition(".")[0].split(", ")
    assert sorted(listed) == sorted(FORMATS.keys() - {"hacbs"})  # a former name of appstudio


@pytest.mark.slow
def test_completion_knows_commands_and_flags() -> None:
    def complete(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "conforma"],
            env={
                "_CONFORMA_COMPLETE": "bash_complete",
                "COMP_WORDS": " ".join(("conforma", *words)),
                "COMP_CWORD": str(len(words)),
                "PYTHONPATH": ":".join(sys.path),
            },
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    assert "plain,version" in complete("ver")
    assert "plain,image" in complete("validate", "im")
    assert "plain,--show-successes" in complete("validate", "image", "--show-s")
    assert "plain,--quiet" in complete("validate", "image", "--qu")
