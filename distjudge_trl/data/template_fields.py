"""What a Jinja template shows of an item: which fields, which of them it only tests, and which parts of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import jinja2
import jinja2.meta
import jinja2.nodes

from distjudge_trl.data.paths import Branch
from distjudge_trl.labels.spelling import nfc


# `row["any column name"]` in a template: the item's fields, by names that Jinja could not write.
ROW = "row"
# What stands between {{ and }}.
_SHOWN = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)


@dataclass(frozen=True)
class TemplateFields:
    """What one text shows: `names` of fields, those that are only tested (`optional`), the `branches` (parts of
    fields by name), names under which the template asks for them (`asked`, as they are spelled), quoted texts that it
    writes out (`quoted`), and whether it uses `row` by itself (`whole_row`) or at all (`row`).
    """

    names: frozenset[str]
    optional: frozenset[str]
    branches: frozenset[Branch]
    asked: frozenset[str]
    quoted: frozenset[str]
    row: bool
    whole_row: bool


def find_fields(tree: jinja2.nodes.Template, environment: jinja2.Environment) -> TemplateFields:
    """Analyse a parsed template."""
    asked = frozenset(jinja2.meta.find_undeclared_variables(tree) - set(environment.globals))
    chains = {tuple(map(nfc, chain)) for chain in _chains(tree) if chain[0] in asked}
    whole_row = (ROW,) in chains
    branches = frozenset(chain[1:] if chain[0] == ROW and len(chain) > 1 else chain for chain in chains)
    names = frozenset(branch[0] for branch in branches)
    return TemplateFields(
        names=names,
        optional=names & frozenset(map(nfc, _tested_names(tree))),
        branches=branches,
        asked=asked - {ROW},
        quoted=frozenset(
            nfc(node.value)
            for output in tree.find_all(jinja2.nodes.Output)
            for node in output.nodes
            if isinstance(node, jinja2.nodes.Const) and isinstance(node.value, str)
        ),
        row=ROW in asked,
        whole_row=whole_row,
    )


def shown_expressions(text: str) -> list[str]:
    """What a template's text shows between {{ and }}, without filters."""
    return [nfc(expression.split("|")[0].strip()) for expression in _SHOWN.findall(text)]


def as_column(name: str) -> str:
    """How a template shows a column of any name."""
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'{{{{ {ROW}["{quoted}"] }}}}'


def unwritable_name(text: str, environment: jinja2.Environment) -> str | None:
    """The first expression of a template that does not parse but may be a column's name, such as
    `Customer reply (English)`.
    """
    for expression in shown_expressions(text):
        try:
            environment.parse(f"{{{{ {expression} }}}}")
        except jinja2.TemplateSyntaxError:
            if expression and "\n" not in expression and not any(mark in expression for mark in "{}'\""):
                return expression
    return None


def _chains(node: jinja2.nodes.Node) -> Iterator[tuple[str, ...]]:
    """The names by which a template reaches into values: `text.Question1` is ("text", "Question1")."""
    chain, dynamic = _chain(node)
    if chain:
        yield chain
        for part in dynamic:
            yield from _chains(part)
    else:
        for child in node.iter_child_nodes():
            yield from _chains(child)


def _chain(node: jinja2.nodes.Node) -> tuple[tuple[str, ...], list[jinja2.nodes.Node]]:
    """The chain of names that an expression begins with, and the expressions inside its brackets."""
    steps: list[str | jinja2.nodes.Node] = []
    while isinstance(node, (jinja2.nodes.Getattr, jinja2.nodes.Getitem)):
        if isinstance(node, jinja2.nodes.Getattr):
            steps.append(node.attr)
        elif isinstance(node.arg, jinja2.nodes.Const) and isinstance(node.arg.value, str):
            steps.append(node.arg.value)
        else:
            steps.append(node.arg)
        node = node.node
    if not isinstance(node, jinja2.nodes.Name):
        return (), []
    chain, dynamic = [node.name], [step for step in steps if not isinstance(step, str)]
    for step in reversed(steps):
        if not isinstance(step, str):
            break
        chain.append(step)
    return tuple(chain), dynamic


def _tested_names(tree: jinja2.nodes.Template) -> set[str]:
    """Names whose presence is the condition of an `if` (`x`, `not x`, `x and y`, `x is defined`) or that have a
    default; a comparison of a field's value is no such test.
    """

    def names(node: jinja2.nodes.Node) -> set[str]:
        chain, _ = _chain(node)
        if len(chain) == 2 and chain[0] == ROW:
            return {chain[1]}
        if isinstance(node, jinja2.nodes.Name):
            return {node.name}
        if isinstance(node, (jinja2.nodes.Not, jinja2.nodes.Test)):
            return names(node.node)
        if isinstance(node, (jinja2.nodes.And, jinja2.nodes.Or)):
            return names(node.left) | names(node.right)
        return set()

    found: set[str] = set()
    for choice in tree.find_all(jinja2.nodes.If):
        found |= names(choice.test)
    for expression in tree.find_all(jinja2.nodes.CondExpr):
        found |= names(expression.test)
    for filtered in tree.find_all(jinja2.nodes.Filter):
        if filtered.name in ("default", "d") and filtered.node is not None:
            found |= names(filtered.node)
    return found
