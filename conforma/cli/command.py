"""click commands that read flags as cobra and pflag do.

Boolean flags take their value only after ``=``, lists are CSV, the first
thing that is wrong is the error, and flags of the root command may stand
anywhere. What click is used for is everything else: declaring options, help
pages, shell completion and calling the function.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn, cast

import click

from conforma.cli.gotypes import Duration, GoBool, GoText, GoType
from conforma.errors import InputError
from conforma.gotext import quoted

GIVEN: Final = "conforma.given"


class Flag(click.Option):
    """An option whose occurrences are read by a ``GoType``.

    ``bare`` is the value of an occurrence without ``=``; a flag with one never
    takes the next word.
    """

    def __init__(self, decls: Sequence[str], **attrs: Any) -> None:
        self.bare: str | None = attrs.pop("bare", None)
        kind = attrs.setdefault("type", GoText())
        if isinstance(kind, GoBool):
            self.bare = "true"
            attrs.setdefault("default", False)
        super().__init__(decls, **attrs)

    def make_metavar(self, ctx: click.Context) -> str:  # noqa: ARG002 - click's signature
        """No word for the value of a flag that needs none."""
        return "" if self.bare is not None else self.type.name

    def get_help_extra(self, ctx: click.Context) -> Any:
        """What click shows, and the default unless it is empty."""
        extra = super().get_help_extra(ctx)
        if self.default not in (None, False, "", (), 0) and not callable(self.default):
            shown = self.default
            if isinstance(shown, tuple):
                shown = ",".join(shown)
            extra["default"] = "true" if shown is True else str(shown)
        return extra

    def shown_name(self) -> str:
        """How pflag names the flag in errors: ``-s, --strict``."""
        return ", ".join(sorted(self.opts, key=len))


class GoCommand(click.Command):
    """A command whose arguments are read as pflag reads them; extra words are ignored.

    The flags of the root command are accepted as well and left in
    ``ctx.obj``, a mapping from their names to their values.
    """

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own parameters, then those of the root command."""
        own = super().get_params(ctx)
        return [*own, *_root_flags(ctx)] if ctx.parent is not None else own

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The command's own options first, then those every command has."""
        shared = {id(flag) for flag in _root_flags(ctx)}
        own: list[tuple[str, str]] = []
        others: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            if record := param.get_help_record(ctx):
                (others if id(param) in shared else own).append(record)
        with formatter.section("Options"):
            formatter.write_dl(own)
        with formatter.section("Options of every command"):
            formatter.write_dl(others)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments. Raises ``InputError`` for the first that is wrong."""
        inherited: dict[str, Any] = dict(ctx.find_root().meta.get(GIVEN, {}))
        params = self.get_params(ctx)
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        given, words = read_flags(params, args, inherited)
        if given.pop("help", False):
            _print_help(ctx)
        for param in params:
            param.handle_parse_result(ctx, given, [])
        ctx.obj = {flag.name: ctx.params.pop(str(flag.name)) for flag in _root_flags(ctx)}
        ctx.args = words
        return words


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used.

    ``commands_at`` maps a name to ``module:attribute`` and a line of help, so
    that listing the commands imports none of them. All of them have the flags ``shared``.
    """

    def __init__(
        self,
        *args: Any,
        commands_at: Mapping[str, tuple[str, str]],
        shared: Sequence[Flag] = (),
        **attrs: Any,
    ) -> None:
        super().__init__(*args, **attrs)
        self._at = commands_at
        self._shared = shared

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """All names, sorted."""
        return sorted(self._at)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command of that name, if there is one."""
        if cmd_name not in self._at:
            return None
        module, _, attribute = self._at[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._at[name][1]) for name in self.list_commands(ctx)])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read what stands before the sub-command's name and hand the rest down.

        Other flags than the group's own belong to the sub-command and are moved behind its
        name; as with cobra, one that not all sub-commands have takes the next word unless
        it has a ``=``.
        """
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        passed_on = [*_root_flags(ctx), *self._shared]
        own, others, rest = _split(self.get_params(ctx), passed_on, args)
        given, _ = read_flags(self.get_params(ctx), own, {})
        if others and not rest:
            read_flags(self.get_params(ctx), others, {})  # raises: nobody knows these flags
        if given.pop("help", False) or not rest:
            _print_help(ctx)
        ctx.meta[GIVEN] = {**ctx.meta.get(GIVEN, {}), **given}
        name, *arguments = rest
        if name not in self._at:
            raise self._unknown(ctx, name)
        return super().parse_args(ctx, [name, *others, *arguments])

    def _unknown(self, ctx: click.Context, name: str) -> InputError:
        import difflib

        close = difflib.get_close_matches(name, self._at, 1)
        return InputError(
            f"unknown command {quoted(name)} for {quoted(ctx.command_path)}",
            hint=f"did you mean {quoted(close[0])}?"
            if close
            else f"Run '{ctx.command_path} --help' for usage.",
        )


def _print_help(ctx: click.Context) -> NoReturn:
    click.echo(ctx.get_help())
    ctx.exit()


def given(ctx: click.Context, name: str) -> bool:
    """Whether the command line says anything about the flag, named as in Python."""
    return ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def timeout_given(ctx: click.Context) -> Duration | None:
    """The ``--timeout`` of a command that has no limit of its own; ``None`` if it was not given."""
    return cast(Duration, ctx.obj["timeout"]) if given(ctx, "timeout") else None


def refuse_words(ctx: click.Context) -> None:
    """Raise ``InputError`` if a command that takes flags only was given another word."""
    if ctx.args:
        raise InputError(f"unknown command {quoted(ctx.args[0])} for {quoted(ctx.command_path)}")


def require_flags(ctx: click.Context, *names: str) -> None:
    """Raise ``InputError`` if any of these flags, named as in Python, was not given."""
    absent = [name for name in names if not given(ctx, name)]
    if absent:
        listed = ", ".join(quoted(name.replace("_", "-")) for name in absent)
        raise InputError(f"required flag(s) {listed} not set")


def read_flags(
    params: Sequence[click.Parameter], args: Sequence[str], given: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The values of all flags in ``args`` on top of those ``given``, and the other words.

    Raises ``InputError`` for the first flag that is unknown, lacks its value or has a bad one.
    """
    values = dict(given)
    fresh: set[str] = set()
    words: list[str] = []
    for flag, name, text in _occurrences(params, args):
        if flag is None:
            words.append(name)
            continue
        key = str(flag.name)
        if not isinstance(flag, Flag):  # click's own --help
            values[key] = True
            continue
        kind = flag.type
        assert isinstance(kind, GoType)
        try:
            values[key] = kind.read(text, values.get(key) if key in fresh else None)
        except InputError as error:
            raise InputError(
                f"invalid argument {quoted(text)} for {quoted(flag.shown_name())} flag: "
                f"{error.message}"
            ) from None
        fresh.add(key)
    return values, words


def _occurrences(
    params: Sequence[click.Parameter], args: Sequence[str]
) -> Iterator[tuple[click.Option | None, str, str]]:
    """Every flag with its text, and every other word with no flag."""
    known = _by_name(params)
    queue = list(reversed(args))

    def value_of(flag: click.Option, name: str, text: str | None) -> str:
        bare = flag.bare if isinstance(flag, Flag) else "true"
        if text is not None:
            return text
        if bare is not None:
            return bare
        if not queue:
            shown = name if name.startswith("--") else f"{quoted(name[1:])[1:-1]!r} in {name}"
            raise InputError(f"flag needs an argument: {shown}")
        return queue.pop()

    while queue:
        arg = queue.pop()
        if arg == "--":
            yield from ((None, word, "") for word in reversed(queue))
            return
        if arg.startswith("--"):
            name, equals, text = arg.partition("=")
            if name in ("--", "---") or name.startswith("---"):
                raise InputError(f"bad flag syntax: {arg}")
            if name not in known:
                raise InputError(f"unknown flag: {name}")
            yield known[name], name, value_of(known[name], name, text if equals else None)
        elif arg.startswith("-") and arg != "-":
            yield from _short(known, arg, value_of)
        else:
            yield None, arg, ""


def _short(
    known: Mapping[str, click.Option], arg: str, value_of: Any
) -> Iterator[tuple[click.Option | None, str, str]]:
    """The flags in a group of one-letter flags: ``-sj``, ``-pFILE``, ``-p=FILE``."""
    letters = arg[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        flag = known.get(f"-{letter}")
        if flag is None:
            raise InputError(f"unknown shorthand flag: '{letter}' in {arg}")
        bare = flag.bare if isinstance(flag, Flag) else "true"
        if letters.startswith("=") and len(letters) > 1:
            text, letters = letters[1:], ""
        elif bare is not None:
            text = bare
        elif letters:
            text, letters = letters, ""
        else:
            text = value_of(flag, f"-{letter}", None)
        yield flag, f"-{letter}", text


def _split(
    params: Sequence[click.Parameter], passed_on: Sequence[Flag], args: Sequence[str]
) -> tuple[list[str], list[str], list[str]]:
    """Flags of ``params`` before the first word, other ones, and everything from that word on."""
    known = _by_name(params)
    elsewhere = _by_name(passed_on)
    own: list[str] = []
    others: list[str] = []
    queue = list(reversed(args))
    while queue:
        arg = queue.pop()
        if not arg.startswith("-") or arg in ("-", "--"):
            return own, others, [arg, *reversed(queue)]
        name = arg.partition("=")[0]
        flag = known.get(name)
        destination = others if flag is None else own
        destination.append(arg)
        flag = flag or elsewhere.get(name)
        bare = getattr(flag, "bare", None if flag is None else "true")
        alone = "=" in arg or (len(arg) > 2 and not arg.startswith("--")) or bare is not None
        if not alone and queue:
            destination.append(queue.pop())
    return own, others, []


def _by_name(params: Sequence[click.Parameter]) -> dict[str, click.Option]:
    return {name: p for p in params if isinstance(p, click.Option) for name in p.opts}


def _root_flags(ctx: click.Context) -> list[Flag]:
    return [param for param in ctx.find_root().command.params if isinstance(param, Flag)]
