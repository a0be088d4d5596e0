"""Chat templates of many families: a prompt that does not show its text never passes."""

from copy import deepcopy

import pytest

from distjudge_trl.batching import describe_way, encode_prompts, pin_date, render_prompt
from distjudge_trl.batching.chat_templates import find_way, pinned_date
from distjudge_trl.errors import UserInputError


ASK = "{% if add_generation_prompt %}<assistant>{% endif %}"
PLAIN = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<end>{% endfor %}" + ASK
# As SmolVLM and Idefics 3 write it.
PARTS = (
    "{% for m in messages %}{{ m['role'] | capitalize }}{% if m['content'][0]['type'] == 'image' %}:{% else %}: "
    "{% endif %}{% for part in m['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "<end>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
# Parts that are joined to a string: plain strings raise.
STRICT_PARTS = "{% for m in messages %}{{ m.role + ': ' + m.content[0].text }}\n{% endfor %}" + ASK
# As Gemma 2 writes it.
REFUSES_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "<{{ m.role }}>{{ m.content | trim }}<end>{% endfor %}" + ASK
)
DROPS_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'user' %}<user>{{ m.content }}<end>{% endif %}{% endfor %}" + ASK
)
DROPS_SYSTEM_PARTS = (
    "{% for m in messages %}{% if m.role == 'user' %}<user>{% for p in m.content %}{{ p.text }}{% endfor %}<end>"
    "{% endif %}{% endfor %}" + ASK
)
THINKS = PLAIN + "{% if add_generation_prompt %}<think>\n{% endif %}"
# As Llama 3.2 writes it.
DATED = (
    "{% if not date_string is defined %}{% if strftime_now is defined %}"
    "{% set date_string = strftime_now('%d %b %Y') %}"
    "{% else %}{% set date_string = '26 Jul 2024' %}{% endif %}{% endif %}<system>Today Date: {{ date_string }}<end>"
    + PLAIN
)
# A date that is always the same, as Llama 3.1 writes it.
FIXED_DATE = "<system>Today Date: {{ date_string | default('26 Jul 2024') }}<end>" + PLAIN

SYSTEM, USER = {"role": "system", "content": "You judge.\n"}, {"role": "user", "content": ' Rate it:\n  the "text" '}


@pytest.fixture()
def with_template(tokenizer):
    def copy(template):
        own = deepcopy(tokenizer)
        own.chat_template = template
        return own

    return copy


@pytest.mark.parametrize(
    ("template", "text", "said"),
    [
        (PLAIN, '<system>You judge.\n<end><user> Rate it:\n  the "text" <end><assistant>', ""),
        (PARTS, 'System: You judge.\n<end>\nUser:  Rate it:\n  the "text" <end>\nAssistant:', "list of parts"),
        (STRICT_PARTS, 'system: You judge.\n\nuser:  Rate it:\n  the "text" \n<assistant>', "list of parts"),
        (REFUSES_SYSTEM, '<user>You judge.\n\n\n Rate it:\n  the "text"<end><assistant>', "no role for the system"),
        (DROPS_SYSTEM, '<user>You judge.\n\n\n Rate it:\n  the "text" <end><assistant>', "leaves messages of"),
        (DROPS_SYSTEM_PARTS, '<user>You judge.\n\n\n Rate it:\n  the "text" <end><assistant>', "leaves messages of"),
        ("{{ messages | tojson }}" + ASK, None, ""),
        ("{% for m in messages %}{{ m.content | e }}{% endfor %}" + ASK, None, ""),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}" + ASK, None, ""),
        ("{% for m in messages %}{{ m.content.split() | join(' ') }}{% endfor %}" + ASK, None, ""),
        ({"rag": "{{ 1 }}", "default": PLAIN}, None, ""),
    ],
)  # fmt: skip
def test_every_message_is_shown(with_template, template, text, said):
    tokenizer = with_template(template)
    rendered = render_prompt(tokenizer, [SYSTEM, USER])
    assert rendered == text if text is not None else "rate it" in rendered.lower()
    lines = describe_way(tokenizer)
    assert said in " ".join(lines) and bool(lines) == bool(said)


@pytest.mark.parametrize(
    "template",
    [
        "<user>Rate the text.<end>" + ASK,
        "{% for m in messages %}<{{ m.role }}>{{ m.text }}<end>{% endfor %}" + ASK,
        "{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content }}{% endif %}{% endfor %}" + ASK,
        "{{ messages[0].content[:9] }}" + ASK,
        "{% for m in messages %}{{ m.content.nothing.there }}{% endfor %}" + ASK,
        "{{ raise_exception('only tools') }}",
        "{% for m in messages %}{% for part in m.content %}{{ part.value }}{% endfor %}{% endfor %}",
        {"rag": PLAIN},
    ],
)
def test_a_template_that_shows_no_text_is_refused_in_one_line(with_template, template):
    with pytest.raises(UserInputError, match="chat template") as error:
        render_prompt(with_template(template), [SYSTEM, USER])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("template", "messages", "said"),
    [
        # The last of several messages alone, a cut text, no answers of an assistant, roles that must alternate.
        ("{{ messages[-1].content }}" + ASK, [USER, {"role": "user", "content": "and that"}], "user message"),
        ("{{ messages[0].content[:60] }}", [{"role": "user", "content": "word " * 40}], "'word"),
        (DROPS_SYSTEM, [USER, {"role": "assistant", "content": "3"}, USER], "assistant message that begins with '3'"),
        (DROPS_SYSTEM, [USER, {"role": "system", "content": "be brief"}], "system message that begins"),
        ("{% if messages[1] %}{{ raise_exception('alternate') }}{% endif %}" + PLAIN, [USER, USER], "alternate"),
    ],
)  # fmt: skip
def test_a_prompt_of_which_the_template_hides_a_part_is_refused(with_template, template, messages, said):
    with pytest.raises(UserInputError, match="does not take this prompt") as error:
        render_prompt(with_template(template), messages)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("end", "closed"),
    [
        ("<think>\n", "<think>\n\n</think>\n\n"),
        ("<think>", "<think>\n\n</think>\n\n"),
        ("<think>\nOkay", "<think>\nOkay\n\n</think>\n\n"),
        ("<seed:think>\n", "<seed:think>\n\n</seed:think>\n\n"),
        ("[THINK]", "[THINK]\n\n[/THINK]\n\n"),
        ("<think>\n\n</think>\n\n", "<think>\n\n</think>\n\n"),
        ("</think>", "</think>"),
    ],
)
def test_a_block_of_thoughts_is_closed(with_template, end, closed):
    tokenizer = with_template(PLAIN + "{{ " + repr(end) + " }}")
    assert render_prompt(tokenizer, [USER]).endswith("<assistant>" + closed)
    assert (closed == end) == (describe_way(tokenizer) == [])
    # A text that only mentions one opens none.
    text = render_prompt(tokenizer, [{"role": "user", "content": "what does <think> mean?"}])
    assert text.endswith("mean?<end><assistant>" + closed)


def test_the_date_is_pinned(with_template, tmp_path):
    from datetime import date

    from transformers import AutoTokenizer

    tokenizer = with_template(DATED)
    assert find_way(tokenizer).dated and pinned_date(tokenizer) is None
    assert date.today().strftime("Today Date: %d %b %Y<end>") in render_prompt(tokenizer, [USER])
    assert "today's date" in describe_way(tokenizer)[0]
    assert pin_date(tokenizer, "2024-02-29") == "2024-02-29"
    text = render_prompt(tokenizer, [SYSTEM, USER])
    assert text.startswith("<system>Today Date: 29 Feb 2024<end><system>You judge.")
    assert "2024-02-29" in describe_way(tokenizer)[0]
    # Kept by whatever reads the saved tokenizer, and by those that are asked for no other day.
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert pin_date(again) == "2024-02-29" and render_prompt(again, [SYSTEM, USER]) == text
    assert again.apply_chat_template([SYSTEM, USER], tokenize=False, add_generation_prompt=True) == text
    assert pin_date(again, "2025-01-02") == "2025-01-02"
    assert "Today Date: 02 Jan 2025<end>" in render_prompt(again, [USER])
    assert again.chat_template.count("strftime_now(format)") == 1


@pytest.mark.parametrize("template", [PLAIN, FIXED_DATE, None, PLAIN + "{# strftime_now('%Y') #}"])
def test_a_template_without_today_s_date_is_left_alone(with_template, template):
    tokenizer = with_template(template)
    assert pin_date(tokenizer) is None and pin_date(tokenizer, "2024-02-29") is None
    assert tokenizer.chat_template == template


@pytest.mark.parametrize("begin", ["", "\n", "  {% set a = 1 %}\n", "{{- '' }}\n", "{%- set a = 1 %}  \n"])
@pytest.mark.parametrize("form", ["%d %B %Y", "%Y-%m-%d", "%-d.%-m.%y", "%A, %e %b, %H:%M"])
def test_a_pinned_template_differs_in_nothing_but_the_date(with_template, begin, form):
    from datetime import datetime

    template = begin + "{% macro show(x) %}[{{ x }}|{{ strftime_now(FORM) }}]{% endmacro %}\n{{ show(1) }}\n" + PLAIN
    # The same template with the text of that day in place of the call.
    text = datetime(2031, 3, 4).strftime(form)
    written = with_template(template.replace("strftime_now(FORM)", repr(text)))
    tokenizer = with_template(template.replace("FORM", repr(form)))
    pin_date(tokenizer, "2031-03-04")
    assert render_prompt(tokenizer, [USER]) == render_prompt(written, [USER])


def test_special_tokens_are_written_once(with_template):
    from tokenizers.processors import TemplateProcessing

    tokenizer = with_template("{{ bos_token }}" + PLAIN)
    tokenizer.bos_token = "<|im_start|>"
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", tokenizer.bos_token_id)]
    )
    (ids,) = encode_prompts(tokenizer, [[USER]])
    assert ids.count(tokenizer.bos_token_id) == 1 and ids[0] == tokenizer.bos_token_id
