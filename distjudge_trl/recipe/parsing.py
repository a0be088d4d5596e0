"""Reading a recipe's options from the command line and a `--config` file."""

from __future__ import annotations

import json
import os
from argparse import SUPPRESS, Action, ArgumentParser, ArgumentTypeError
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from distjudge_trl.errors import UserInputError, nearest
from distjudge_trl.files.yaml import read_mapping


if TYPE_CHECKING:
    from transformers import HfArgumentParser
    from trl import TrlParser

    from distjudge_trl.tasks import JudgmentTask, TaskOptions


def split_config(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The path after `--config`, if it is given, and all other words of a command line."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", action="append", nargs="?", const="")
    known, rest = parser.parse_known_args(words)
    paths = known.config or []
    if len(paths) > 1:
        raise UserInputError(f"--config is given {len(paths)} times: put all options into one file.")
    if "" in paths:
        raise UserInputError("--config needs the path of a YAML file.")
    return (paths[0] if paths else None), rest


def find_option(name: str, words: Sequence[str], config: Mapping[str, Any]) -> Any:
    """The value of one option on which other options depend; `None` if it is not given."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(f"--{name}", nargs="?")
    value = getattr(parser.parse_known_args(words)[0], name)
    return config.get(name) if value is None else value


def read_config(path: str | None) -> dict[str, Any]:
    """Options of a `--config` file by name, dashes as underscores. `env` sets environment variables, as TRL does.

    Raises:
        [`UserInputError`]: the file does not exist or is not a YAML mapping, or an option occurs twice.
    """
    if path is None:
        return {}
    content = read_mapping(path, "must be a mapping of option names to values, such as `alpha: 0.8`.")
    config: dict[str, Any] = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name in config:
            raise UserInputError(f"{path}: the key {name!r} occurs twice, with dashes and with underscores.")
        config[name] = value
    variables = config.pop("env", {})
    if not isinstance(variables, dict):
        raise UserInputError(f"{path}: `env` must be a mapping of environment variables to values.")
    os.environ.update({str(name): str(value) for name, value in variables.items()})
    return config


def check_config(parser: TrlParser, config: Mapping[str, Any], path: str | None) -> dict[str, Any]:
    """Check the options of a `--config` file. The parser takes them as defaults, which argparse does not check.

    Raises:
        [`UserInputError`]: an option that is not known, or a value that it does not take.
    """
    actions: dict[str, Action] = {}
    for action in parser._actions:
        actions.setdefault(action.dest, action)  # its --no_ counterpart may follow it
    checked = {}
    for name, value in config.items():
        if name not in actions:
            raise UserInputError(f"{path}: {unknown_option(f'--{name}', parser)}")
        checked[name] = _checked(actions[name], value, f"{path}: `{name}`")
    return checked


def _checked(action: Action, value: Any, place: str) -> Any:
    if action.choices is not None and action.dest != "method":
        # YAML reads a bare `no` as false.
        text = "no" if value is False else str(value)
        found = [choice for choice in action.choices if str(choice) == text]
        if not found and not (value is None and action.default is None):
            raise UserInputError(f"{place} must be one of {', '.join(map(str, action.choices))}, got {value!r}.")
        return found[0] if found else None
    if action.const is True and not isinstance(value, bool):
        assert callable(action.type)
        try:
            return action.type(str(value))
        except ArgumentTypeError:
            auto = "auto, " if action.type is auto_or_bool else ""
            raise UserInputError(f"{place} must be {auto}true or false, got {value!r}.") from None
    return value


def auto_or_bool(text: str) -> bool | str:
    """Parse `"auto"`, or true and false in all spellings of a switch."""
    from transformers.hf_argparser import string_to_bool

    try:
        return text if text == "auto" else string_to_bool(text)
    except ArgumentTypeError:
        raise ArgumentTypeError(f"must be auto, true or false, got {text!r}") from None


def read_given(parser: TrlParser, words: Sequence[str], config: Mapping[str, Any]) -> dict[str, Any]:
    """Options that are given on the command line or in a checked `--config` file, in any spelling, with their parsed
    values. Options that are not given are absent. The parser is left unchanged.

    Raises:
        [`UserInputError`]: a value that an option does not take.
    """
    before = [(action, action.default, action.required) for action in parser._actions]
    try:
        for action in parser._actions:
            action.default, action.required = SUPPRESS, False
        parser.set_defaults_with_config(**config)
        return dict(vars(parser.parse_known_args(list(words))[0]))
    finally:
        for action, default, required in before:
            action.default, action.required = default, required


def print_grouped_help(parser: TrlParser, groups: Mapping[str, Iterable[str]], refused: Iterable[str]) -> None:
    """Print a parser's help in groups, which map titles to names of options. Options in none of them come last. What
    TRL says of options that are refused is replaced by where to read why.
    """
    refused = set(refused)
    for action in parser._actions:
        if action.dest in refused:
            action.help = "refused, see docs/training.md"
    placed = {name for names in groups.values() for name in names}
    rest = dict.fromkeys(action.dest for action in parser._actions if action.dest not in placed)
    parser._action_groups = []
    for title, names in {
        **groups,
        "Training, as TRL's SFTConfig and transformers' TrainingArguments": rest,
    }.items():
        group = parser.add_argument_group(title)
        group._group_actions = [action for name in names for action in parser._actions if action.dest == name]
    parser.usage = "%(prog)s [OPTIONS]"
    parser.print_help()


def parser_error(message: str) -> NoReturn:
    """Replaces argparse's `error`, which prints 150 lines of usage before the message."""
    raise UserInputError(f"{message.rstrip('.')}. See --help.")


def unknown_option(word: str, parser: HfArgumentParser) -> UserInputError:
    """An error that names the nearest option that is known."""
    known = [option for action in parser._actions for option in action.option_strings]
    close = nearest(word, known)
    return UserInputError(f"Unknown option {word}.{f' Did you mean {close}?' if close else ' See --help.'}")


def explain(error: Exception, parser: HfArgumentParser) -> UserInputError:
    """A parser's exception as one line; for an unknown option it names the nearest known one."""
    if isinstance(error, UserInputError):
        return error
    message = " ".join(str(error).split())
    if "HfArgumentParser" not in message and "Unknown arguments" not in message:
        return UserInputError(message)
    known = [option for action in parser._actions for option in action.option_strings]
    for word in message.replace("'", " ").replace(",", " ").replace("]", " ").split():
        if word.startswith("--") and word not in known:
            return unknown_option(word, parser)
    if "HfArgumentParser" in message:
        return UserInputError(f"These words belong to no option: {message.rpartition(':')[2].strip()}.")
    return UserInputError(message)


def make_option_parser(task: JudgmentTask) -> HfArgumentParser:
    """Parser of a task's own options ([`~distjudge_trl.tasks.TaskOptions`])."""
    from transformers import HfArgumentParser

    parser = HfArgumentParser((task.options,), prog=task.name, allow_abbrev=False, add_help=False)
    parser.error = parser_error
    return parser


def parse_task_options(
    task: JudgmentTask, args: Sequence[str], defaults: Mapping[str, Any] | None = None
) -> TaskOptions:
    """Parse a task's options from command line arguments. `defaults` replace the task's own.

    Raises:
        [`UserInputError`]: an unknown option (the nearest known one is named) or a value out of range.
    """
    parser = make_option_parser(task)
    known = {action.dest for action in parser._actions}
    parser.set_defaults(**{name: value for name, value in (defaults or {}).items() if name in known})
    options, rest = parser.parse_args_into_dataclasses(
        list(args), look_for_args_file=False, return_remaining_strings=True
    )
    if rest:
        raise explain(ValueError(f"Unknown arguments: {' '.join(rest)}"), parser)
    options.check()
    return options


def option_tokens(options: dict[str, Any]) -> list[str]:
    """Options as words of a recipe's command line, without those that are `None`."""
    tokens: list[str] = []
    for name, value in options.items():
        if value is None:
            continue
        values = value if isinstance(value, list | tuple) else [value]
        # TRL's command lines take mappings as JSON.
        tokens += [f"--{name}", *(json.dumps(item) if isinstance(item, dict) else str(item) for item in values)]
    return tokens
