"""Which label a returned token means: text and bytes, blanks, case, beginnings; sampled answers in words."""

import math

import numpy as np
import pytest

from distjudge_trl.errors import JudgmentDataError, UserInputError
from distjudge_trl.judges.api.extraction import (
    Answer,
    AnswerParser,
    Findings,
    MalformedAnswerError,
    parse_answer,
    read_log_probs,
    read_samples,
)
from distjudge_trl.judges.api.matching import Entry, TextMatcher, TokenMatcher, parse_entry
from distjudge_trl.labels import LabelSpace


def labels_of(space, *tokens):
    """The labels' names of tokens, the likeliest first."""
    matches = TextMatcher(space).match([Entry(text, -float(i)) for i, text in enumerate(tokens)])
    return [None if label is None else space.labels[label] for label in matches.labels]


NLI = LabelSpace(["entailment", "neutral", "contradiction"], {"contradiction": ["contradictory"]})


@pytest.mark.parametrize("token", ["neutral", " neutral", "Neutral", " NEUTRAL"])
def test_complete_spellings_count_in_any_case_and_after_a_blank(token):
    assert labels_of(NLI, token) == ["neutral"]


@pytest.mark.parametrize(
    ("tokens", "labels"),
    [
        (("ent", "contr", "ne"), ["entailment", "contradiction", "neutral"]),
        ((" ent", "e"), ["entailment", "entailment"]),  # of " entailment" and of "entailment"
        (("contra", "contr", "c"), ["contradiction", None, None]),  # a spelling has one first token
        (("neutral", "neut", "n"), ["neutral", None, None]),  # which is the complete one, if it is there
        (("Ent", "NE"), [None, None]),  # of variants only complete words count
        (("", " ", "\n", "The", "neutrality"), [None] * 5),
    ],
)
def test_beginnings_of_one_label_count(tokens, labels):
    assert labels_of(NLI, *tokens) == labels


def test_beginnings_of_several_labels_do_not_count():
    space = LabelSpace(["positive", "possible", "not sure", "Nothing"])
    assert labels_of(space, "pos", "posi", "Not", "not", "No") == [None, "positive", None, "not sure", "Nothing"]
    found = TextMatcher(space).match([Entry("pos", math.log(0.4)), Entry("posi", math.log(0.2))])
    assert found.ambiguous == pytest.approx(0.4) and found.prefix == pytest.approx(0.2)


def test_a_number_is_not_the_beginning_of_another():
    space = LabelSpace(["1", "1.5", "10", "-1"])
    assert labels_of(space, "1", " 1", "10", "-", "-1") == ["1", "1", "10", "-1", "-1"][:3] + [None, "-1"]
    assert labels_of(LabelSpace(["-2", "-1"]), "-") == [None]


def test_answers_go_before_synonyms_and_those_before_variants():
    letters = LabelSpace(["first", "second"], {"second": ["a", "last"]}, answers={"first": "A", "second": "B"})
    assert labels_of(letters, "A", "a", " A", " b") == ["first", "second", None, "second"]
    # What the judge answers is a letter, so its label is no answer.
    assert labels_of(letters, "first", "last") == [None, "second"]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ({"token": "ne", "bytes": [110, 101]}, "ne"),
        ({"token": " ne", "bytes": None}, " ne"),
        ({"token": "\u0120ne"}, " ne"),
        ({"token": "\u2581ne", "bytes": list("\u2581ne".encode())}, " ne"),
        ({"token": "<0x41>", "bytes": list(b"<0x41>")}, "A"),
        ({"token": "bytes:\\x41\\x42", "bytes": [65, 66]}, "AB"),
        ({"token": "\ufffd", "bytes": [195, 164]}, "ä"),
    ],
)
def test_tokens_are_read_from_bytes_and_in_all_notations(raw, text):
    assert parse_entry({**raw, "logprob": -1}).text == text


def test_tokens_by_id_mean_what_they_mean_to_a_local_judge(tokenizer):
    space = LabelSpace(["yes", "no"])
    space.bind(tokenizer)
    matcher = TokenMatcher(space, tokenizer)
    ids = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in ("yes", "no", "tie")]
    named = [parse_entry({"token": f"token_id:{i}", "logprob": -1}) for i in ids]
    assert matcher.match(named).labels == [0, 1, None]
    texts = [Entry(tokenizer.decode([i]), -1.0) for i in ids]
    assert matcher.match(texts).labels == [0, 1, None]


# Missing labels


def read(tokens, policy="floor", space=NLI):
    findings = Findings()
    entries = [Entry(text, math.log(p)) for text, p in tokens]
    judged = read_log_probs([Answer(entries, "", False)], TextMatcher(space), space, policy=policy, findings=findings)
    return judged, findings


def test_a_missing_label_gets_the_floor_before_normalisation():
    judged, findings = read([("neutral", 0.5), (" neutral", 0.1), ("ent", 0.2), ("The", 0.1)])
    assert judged.probabilities[0] == pytest.approx(np.array([0.2, 0.6, 1e-6]) / 0.800001)
    assert judged.floored.tolist() == [[False, False, True]]
    assert judged.mass[0] == pytest.approx(0.8)
    assert (findings.items_with_missing, findings.missing_labels) == (1, 1)
    assert findings.items_without_labels == 0
    assert read([("The", 0.9)])[1].items_without_labels == 1  # the model said nothing about the item
    assert findings.prefix_mass == pytest.approx(0.2) and judged.bounds is None


def test_bounds_are_what_the_other_tokens_leave():
    judged, _ = read([("neutral", 0.5), ("ent", 0.2), ("The", 0.25)], "bound")
    low, high = judged.bounds[:, 0]
    assert low == pytest.approx([0.2, 0.5, 1e-6])
    assert high == pytest.approx([0.2, 0.5, 0.05])  # of the 5 % that are left
    _, high = read([("neutral", 0.5), ("ent", 0.001)], "bound")[0].bounds[:, 0]
    forms = TextMatcher(NLI).num_forms[2]
    assert high[2] == pytest.approx(forms * 0.001)  # no token of it can be likelier than those that were returned


def test_an_error_names_the_labels():
    with pytest.raises(JudgmentDataError, match=r"row 1: the labels entailment, contradiction are not among the 2"):
        read([("neutral", 0.5), ("The", 0.1)], "error")


def test_a_refusal_says_nothing_about_the_labels():
    findings = Findings()
    refusal = parse_answer('{"choices": [{"message": {"content": null, "refusal": "I cannot."}, "logprobs": null}]}')
    judged = read_log_probs([refusal], TextMatcher(NLI), NLI, policy="bound", findings=findings)
    assert judged.probabilities[0] == pytest.approx([1 / 3] * 3) and judged.mass[0] == 0
    assert judged.bounds[1, 0].tolist() == [1, 1, 1] and findings.refused == 1


@pytest.mark.parametrize(
    "raw", ["[]", "{}", '{"choices": []}', '{"choices": [1]}', '{"choices": [{"logprobs": {"content": [1]}}]}']
)
def test_malformed_answers(raw):
    with pytest.raises(MalformedAnswerError):
        parse_answer(raw)


# Samples


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Neutral", 1),
        (" neutral.\n", 1),
        ("**Contradiction**", 2),
        ('"contradictory"', 2),
        ("Entailment: the first says so", 0),
        ("Entailment\nBecause it does.", 0),
        ("<think>maybe neutral</think>\n\nentailment", 0),
        ("Neutrally", None),
        ("I think neutral", None),
        ("", None),
    ],
)
def test_answers_in_words(text, label):
    assert AnswerParser(NLI).parse(text) == label


def test_answers_in_letters_and_numbers():
    letters = AnswerParser(LabelSpace(["first", "second"], answers={"first": "A", "second": "B"}))
    assert [letters.parse(t) for t in ("A", "b)", "(B) it is", "A good text", "A: good")] == [0, 1, 1, None, 0]
    numbers = AnswerParser(LabelSpace(["1", "1.5", "2"]))
    assert [numbers.parse(t) for t in ("1.5", "1.50", "2.", "2/5", "1. The text")] == [1, 1, 2, None, 0]


def test_votes_are_smoothed_and_what_is_no_label_is_counted():
    findings = Findings()
    answers = [[Answer(None, text, False) for text in ("neutral", "Neutral", "entailment", "hm")], []]
    answers[1] = [Answer(None, "neutral", True)] + [Answer(None, "hm", False)] * 3
    judged = read_samples(answers, NLI, smoothing=0.5, findings=findings)
    assert judged.probabilities[0] == pytest.approx(np.array([1.5, 2.5, 0.5]) / 4.5)
    assert judged.probabilities[1] == pytest.approx([1 / 3] * 3)
    assert judged.unparsed.tolist() == [0.25, 1.0] and judged.mass.tolist() == [0.75, 0.0]
    assert (findings.answers, findings.unparsed, findings.refused) == (8, 5, 1)


def test_without_any_label_it_says_what_was_answered():
    with pytest.raises(UserInputError, match="None of the 2 answers is a label. One begins with 'Well, it depends'"):
        read_samples([[Answer(None, "Well, it depends", False)] * 2], NLI, smoothing=1, findings=Findings())
    with pytest.raises(UserInputError, match="--max-tokens"):
        read_samples([[Answer(None, "", False)] * 2], NLI, smoothing=1, findings=Findings())
