"""Prompts that fit: what is shortened, what never is, and how the length is counted."""

import pytest

from distjudge_trl.batching import PromptFitter, count_tokens, encode_prompts, render_prompt
from distjudge_trl.data import PromptTemplate
from distjudge_trl.errors import JudgmentDataError


TEMPLATE = PromptTemplate(
    [{"role": "user", "content": "Rate {{ kind }}.\nText: {{ text }}\nOther: {{ other }}\nAnswer with one number."}]
)
LONG = " ".join(f"word{i}" for i in range(400))
SHORT = {"kind": "the text", "text": "yes", "other": "no"}


def length(tokenizer, messages):
    return count_tokens(tokenizer, render_prompt(tokenizer, messages))


def test_what_fits_stays_as_it_is(tokenizer):
    fitter = PromptFitter(tokenizer, 200)
    assert fitter.fit(TEMPLATE, SHORT) == TEMPLATE.render(SHORT)
    assert fitter.num_shortened == 0


def test_the_count_is_that_of_the_encoded_prompt(tokenizer):
    messages = TEMPLATE.render({**SHORT, "text": LONG})
    assert length(tokenizer, messages) == len(encode_prompts(tokenizer, [messages])[0])


@pytest.mark.parametrize("truncation", ["middle", "end"])
@pytest.mark.parametrize("max_length", [120, 300, 1000])
def test_the_longest_field_is_cut_to_just_fit(tokenizer, truncation, max_length):
    fitter = PromptFitter(tokenizer, max_length, truncation)
    (message,) = fitter.fit(TEMPLATE, {**SHORT, "text": LONG})
    assert max_length - 8 <= length(tokenizer, [message]) <= max_length
    content = message["content"]
    assert content.startswith("Rate the text.\nText: word0 ") and "[...]" in content
    assert content.endswith("\nOther: no\nAnswer with one number.")
    assert ("word399" in content) == (truncation == "middle")
    assert fitter.num_shortened == 1


def test_two_long_fields_keep_equally_much(tokenizer):
    a, b = "A" * 900, "B" * 500
    (message,) = PromptFitter(tokenizer, 400).fit(TEMPLATE, {**SHORT, "text": a, "other": b})
    assert message["content"].count("A") - 1 == message["content"].count("B")  # "Answer" has one


def test_a_shorter_second_field_is_left_alone_while_the_first_suffices(tokenizer):
    (message,) = PromptFitter(tokenizer, 500).fit(TEMPLATE, {**SHORT, "text": "A" * 900, "other": "B" * 100})
    assert message["content"].count("B") == 100


def test_error_shortens_nothing_and_names_the_field(tokenizer):
    with pytest.raises(JudgmentDataError, match="tokens, more than the 100 allowed.*--truncate middle") as caught:
        PromptFitter(tokenizer, 100, "error").fit(TEMPLATE, {**SHORT, "text": LONG}, source="f.jsonl", row=7)
    assert (caught.value.source, caught.value.row, caught.value.field) == ("f.jsonl", 7, "text")


def test_a_template_that_is_too_long_by_itself_is_an_error(tokenizer):
    with pytest.raises(JudgmentDataError, match="does not fit into 30 tokens"):
        PromptFitter(tokenizer, 30).fit(TEMPLATE, {**SHORT, "text": LONG})


def test_fields_that_are_no_text_are_left_alone(tokenizer):
    template = PromptTemplate([{"role": "user", "content": "{{ n }} {{ text }}"}])
    (message,) = PromptFitter(tokenizer, 100).fit(template, {"n": 12345678901234567890, "text": LONG})
    assert message["content"].startswith("12345678901234567890 word0")


def test_without_a_chat_template(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", None)
    messages = PromptFitter(tokenizer, 150).fit(TEMPLATE, {**SHORT, "text": LONG})
    (ids,) = encode_prompts(tokenizer, [messages], max_length=150)
    assert tokenizer.decode(ids).endswith("Answer with one number.\n\nAnswer:\n")


def test_lengths_below_one_are_refused(tokenizer):
    with pytest.raises(ValueError, match="at least 1"):
        PromptFitter(tokenizer, 0)


def test_parts_of_fields_are_cut_like_fields(tokenizer):
    template = PromptTemplate(
        [{"role": "user", "content": "{{ d.text.strip() }}\nBeside: {{ row['d']['note'] }} {{ kind }}\nAnswer."}]
    )
    fields = {"d": {"text": LONG, "note": "short", "more": [1]}, "kind": "k"}
    (message,) = PromptFitter(tokenizer, 120).fit(template, fields)
    assert length(tokenizer, [message]) <= 120 and message["content"].endswith("\nBeside: short k\nAnswer.")
    assert fields["d"]["text"] == LONG
    with pytest.raises(JudgmentDataError, match="field `d.text`"):
        PromptFitter(tokenizer, 120, "error").fit(template, fields)
