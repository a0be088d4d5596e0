"""Prompt templates: strict about fields, safe against templates from strangers."""

import pytest

from distjudge_trl.data import PromptTemplate
from distjudge_trl.errors import JudgmentDataError, UserInputError


def test_fields_are_filled_in_and_nothing_is_escaped():
    template = PromptTemplate([{"role": "user", "content": "Rate: {{ text }}"}])
    assert template.render({"text": "<b>&"}) == [{"role": "user", "content": "Rate: <b>&"}]


def test_a_missing_field_is_an_error_that_lists_what_there_is():
    template = PromptTemplate([{"role": "user", "content": "{{ premise }}"}])
    with pytest.raises(JudgmentDataError, match="'premise' is undefined.*The item has: hypothesis, id"):
        template.render({"id": 1, "hypothesis": "h"}, source="f", row=2)


def test_a_template_that_does_not_parse():
    with pytest.raises(UserInputError, match="does not parse"):
        PromptTemplate([{"role": "user", "content": "{{ text "}])


@pytest.mark.parametrize("content", ["{{ 1 / 0 }}", "{{ text + 1 }}", "{% include 'x' %}"])
def test_a_template_that_fails_on_an_item(content):
    with pytest.raises(JudgmentDataError, match="row 3: the prompt template"):
        PromptTemplate([{"role": "user", "content": content}]).render({"text": "a"}, row=3)


def test_a_malicious_template_is_stopped():
    template = PromptTemplate([{"role": "user", "content": "{{ ''.__class__.__mro__[1].__subclasses__() }}"}])
    with pytest.raises(JudgmentDataError, match="unsafe"):
        template.render({})


@pytest.mark.parametrize("messages", [[], [{"role": "user"}], ["text"]])
def test_malformed_templates(messages):
    with pytest.raises(UserInputError):
        PromptTemplate(messages)


@pytest.mark.parametrize(
    "text",
    ["{% for i in range(9999) %}{% for j in range(9999) %}{{ x }}{% endfor %}{% endfor %}", "{{ x * 90000000 }}"],
)
def test_a_template_that_never_ends_is_given_up(text):
    with pytest.raises(JudgmentDataError, match="makes more than 5,000,000 characters"):
        PromptTemplate([{"role": "user", "content": text}]).render({"x": "word"}, row=1)
