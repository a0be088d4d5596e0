"""The commands of `distjudge-trl sweep`; heavy imports wait until a command needs them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import Field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from distjudge_trl.errors import UserInputError, writing
from distjudge_trl.sweep.settings import option_fields


if TYPE_CHECKING:
    from distjudge_trl.sweep.store import Store


# Where a written file finds no room.
_ADVICE = "Make room, or name another file."


class _SweepGroup(click.Group):
    """`sweep RECIPE ...` is `sweep run RECIPE ...`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.commands["run"].format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


@click.group(name="sweep", cls=_SweepGroup, short_help="Search hyperparameters with Optuna.")
def sweep() -> None:
    """Try a recipe's grid: a study on Optuna, resumable, with as many workers as you start.

    \b
    The paper's 36 points of alpha and epsilon, and another search:
        distjudge-trl sweep summeval --load_in_4bit
        distjudge-trl sweep vader --param alpha=0,0.4,0.8 --param learning_rate=log:1e-5:2e-4 --sampler tpe --trials 30
    Four GPUs at a time on this machine, and the same on any other that reaches the storage:
        distjudge-trl sweep summeval --jobs 4 --storage postgresql://user:password@host/sweeps
    Afterwards, or meanwhile:
        distjudge-trl sweep status summeval
        distjudge-trl sweep show summeval --top 10
        distjudge-trl sweep export summeval --csv trials.csv
        distjudge-trl sweep best summeval --write-recipe my_summeval.yaml
        distjudge-trl report runs/sweeps/summeval --out report

    Configurations are compared on validation items, a part of the training side; the best one alone is scored on test
    items. The same command goes on with a study that was stopped or killed. Options that are not listed go to the
    recipe (`distjudge-trl train RECIPE --help`) and hold for all runs.

    Exit code 0: all done; 1: some configuration failed; 2: wrong input; 130: stopped by Ctrl-C (143: by SIGTERM).
    """


def _read_config(ctx: click.Context, _param: click.Parameter, path: str | None) -> str | None:
    """A sweep's YAML file becomes the defaults of the options."""
    if path is not None:
        from distjudge_trl.files.shipped_files import find_shipped
        from distjudge_trl.sweep.settings import read_config

        content = read_config(str(find_shipped(path, "recipes/sweeps", ".yaml", "sweep")))
        ctx.default_map = {name: value for name, value in content.items() if name not in ("parameters", "options")}
        ctx.meta["parameters"] = content.get("parameters") or {}
        ctx.meta["options"] = content.get("options") or {}
    return path


def _setting_options(*names: str) -> Callable[[Any], Any]:
    """Click options for these settings of a sweep, or for all of them."""

    def decorate(command: Any) -> Any:
        for setting in reversed(option_fields()):
            if setting.name in names or not names:
                command = _make_option(setting)(command)
        return command

    return decorate


def _make_option(setting: Field[Any]) -> Callable[[Any], Any]:
    about = dict(setting.metadata)
    if setting.name == "params":
        return click.option("--param", "params", multiple=True, **about)
    flag = f"--{setting.name.replace('_', '-')}"
    if isinstance(setting.default, bool):
        return click.option(flag, is_flag=True, **about)
    if "choices" in about:
        about["type"] = click.Choice(about.pop("choices"))
    if "at_least" in about:
        about["type"] = click.IntRange(min=about.pop("at_least"))
    return click.option(flag, default=setting.default, show_default=setting.default is not None, **about)


_study_options = _setting_options("study", "storage", "out")


@sweep.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    options_metavar="RECIPE [OPTIONS]",
)
@click.option(
    "--config",
    is_eager=True,
    expose_value=False,
    callback=_read_config,
    metavar="FILE",
    help="Read options from a YAML file: these options (without dashes), `parameters:` (names to values) and"
    " `options:`"
    " (options of the recipe). Or the name of a shipped file: snli, mnli, summeval and mtbench are the paper's grids.",
)
@_setting_options()
@click.pass_context
def run(ctx: click.Context, **options: Any) -> None:
    """Run a sweep, or go on with it (`run` may be left out)."""
    from distjudge_trl.runtime.logs import quieten

    quieten()
    from distjudge_trl.sweep.run import run_sweep
    from distjudge_trl.sweep.settings import SweepSettings

    arguments = list(ctx.args)
    recipe = (ctx.default_map or {}).get("recipe")
    recipe = str(recipe) if recipe is not None else None
    if arguments and not arguments[0].startswith("-"):
        recipe = arguments.pop(0)
    if recipe is None:
        raise UserInputError("The recipe comes first: distjudge-trl sweep RECIPE ...; see `distjudge-trl recipes`.")
    if recipe.endswith((".yaml", ".yml")):
        arguments = ["--task", recipe, *arguments]
        recipe = "custom"
    settings = SweepSettings(
        recipe=recipe,
        parameters=ctx.meta.get("parameters", {}),
        options=ctx.meta.get("options", {}),
        recipe_arguments=arguments,
        **options,
    )
    code = run_sweep(settings, _console())
    if code:
        raise SystemExit(code)


def _console() -> Any:
    from rich.console import Console

    # A pipe has no width: nothing is folded there.
    console = Console()
    return console if console.is_terminal or os.environ.get("COLUMNS") else Console(width=160)


def _open(name: str | None, study: str | None, storage: str | None, out: str | None) -> Store:
    """A study by the name of its recipe, its own name, or the sweep's folder."""
    from distjudge_trl.sweep.storages import file_of
    from distjudge_trl.sweep.store import Store
    from distjudge_trl.sweep.study import JOURNAL_NAME

    if not (name or study or out):
        raise UserInputError("Which study? Give its name or the sweep's folder, or --study and --storage.")
    folder = Path(out) if out is not None else Path(name) if name is not None and Path(name).is_dir() else None
    shown = study or (Path(name).name if name is not None else folder.name if folder is not None else "")
    folder = folder or Path("runs/sweeps") / shown
    file = file_of(storage) if storage is not None else folder / JOURNAL_NAME
    if file is not None and not file.is_file():
        raise UserInputError(f"{file}: no such study. Give the sweep's folder, or --storage where it has another.")
    store = Store(storage, folder, shown)
    if study is None and not store.exists():
        import optuna

        # A folder may be called otherwise than its study.
        found = optuna.get_all_study_summaries(store.storage, include_best_trial=False)
        names = [summary.study_name for summary in found if "grown_from" not in summary.user_attrs]
        store = Store(storage, folder, names[0]) if len(names) == 1 and storage is None else store
    store.open()
    return store


@sweep.command()
@click.argument("name", metavar="STUDY", required=False)
@_study_options
def status(name: str | None, study: str | None, storage: str | None, out: str | None) -> None:
    """How far a sweep is: every configuration with its state, and what failed with its reason."""
    from distjudge_trl.sweep.table import failures, make_table, read_rows, summary

    store = _open(name, study, storage, out)
    rows = read_rows(store)
    console = _console()
    console.print(make_table(store, rows, ranks=False))
    for line in (*failures(rows), summary(store, rows)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


@sweep.command()
@click.argument("name", metavar="STUDY", required=False)
@_study_options
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Show this many of the best configurations.",
)
@click.option(
    "--log", "log", type=int, metavar="TRIAL", help="Print the end of this trial's log instead of the table."
)
def show(name: str | None, study: str | None, storage: str | None, out: str | None, top: int, log: int | None) -> None:
    """The best configurations."""
    from distjudge_trl.sweep.table import make_table, ranked

    store = _open(name, study, storage, out)
    if log is not None:
        found = [trial for trial in store.trials() if trial.number == log]
        if not found:
            raise UserInputError(f"The study {store.name!r} has no trial {log}.")
        from distjudge_trl.runtime.logs import log_tail
        from distjudge_trl.sweep.process import LOG_NAME

        attributes = found[0].user_attrs
        runs = sorted((store.out / attributes["folder"]).glob("seed-*")) if "folder" in attributes else []
        click.echo(attributes.get("error") or f"trial {log} did not fail")
        click.echo(attributes.get("log_tail") or (log_tail(runs[-1] / LOG_NAME) if runs else ""))
        return
    rows = ranked(store)
    if not rows:
        raise UserInputError(f"The study {store.name!r} has no finished trial yet.")
    _console().print(make_table(store, rows[:top], ranks=True))


@sweep.command()
@click.argument("name", metavar="STUDY", required=False)
@_study_options
@click.option("--csv", "csv_path", metavar="FILE", help="Write a CSV file with one line per configuration.")
@click.option(
    "--json", "json_path", metavar="FILE", help="Write a JSON file with the scores of every seed and the ends of logs."
)
def export(
    name: str | None,
    study: str | None,
    storage: str | None,
    out: str | None,
    csv_path: str | None,
    json_path: str | None,
) -> None:
    """Write all configurations into a file."""
    from distjudge_trl.files.atomic import check_folder, write_json
    from distjudge_trl.sweep import table

    if (csv_path is None) == (json_path is None):
        raise UserInputError("Give --csv FILE or --json FILE.")
    store = _open(name, study, storage, out)
    path = Path(str(csv_path or json_path))
    check_folder(path.parent, "--csv" if csv_path else "--json", shown=path)
    if path.is_dir():
        raise UserInputError(f"{path}: is a folder; name a file.")
    with writing(path, _ADVICE):
        if csv_path is not None:
            count = table.write_csv(path, store)
        else:
            content = table.export(store)
            write_json(path, content)
            count = len(content["trials"])
    click.echo(f"{count} configurations: {path}")


@sweep.command()
@click.argument("name", metavar="STUDY", required=False)
@_study_options
@click.option(
    "--write-recipe", metavar="FILE", help="Write the best configuration as a YAML file for the recipe's --config."
)
def best(name: str | None, study: str | None, storage: str | None, out: str | None, write_recipe: str | None) -> None:
    """The best configuration, as options of its recipe."""
    from distjudge_trl.files.atomic import check_folder
    from distjudge_trl.recipe.parsing import option_tokens
    from distjudge_trl.sweep import best as winner
    from distjudge_trl.sweep.table import score_text

    store = _open(name, study, storage, out)
    definition, row = store.definition, winner.find_best(store)
    if write_recipe is not None:
        check_folder(Path(write_recipe).parent, "--write-recipe", shown=write_recipe)
        if Path(write_recipe).is_dir():
            raise UserInputError(f"{write_recipe}: is a folder; name a file.")
    click.echo(f"trial {row.number}: {definition.metric} {score_text(row)} on validation items")
    options = option_tokens(winner.recipe_config(row, definition))
    click.echo(shlex.join(["distjudge-trl", "train", definition.recipe, *options]))
    if write_recipe is not None:
        with writing(write_recipe, _ADVICE):
            winner.write_recipe(write_recipe, store, row)
        click.echo(shlex.join(["distjudge-trl", "train", definition.recipe, "--config", write_recipe]))
