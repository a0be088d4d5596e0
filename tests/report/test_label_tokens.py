"""What `distjudge-trl data --stats --model` says about labels under a tokenizer."""

from distjudge_trl.labels import LabelSpace
from distjudge_trl.report.label_tokens import describe_doubts, label_rows


def test_answers_and_their_tokens(tokenizer):
    space = LabelSpace(["1", "1.5"], answers={"1": "A", "1.5": "B"}).bind(tokenizer)
    rows = list(label_rows(space))
    assert [row[:2] for row in rows] == [("1", "A"), ("1.5", "B")] and "'A'" in rows[0][2]
    assert not list(describe_doubts(space))


def test_fragments_and_synonyms_that_are_no_answers(tokenizer):
    space = LabelSpace(["xylophone", "no"], {"no": ["1"], "xylophone": ["12"]}).bind(tokenizer)
    assert len(tokenizer("xylophone")["input_ids"]) > 1
    fragments, synonyms = describe_doubts(space)
    assert "'xylophone' is read off the fragment 'x" in fragments and "answers: letters" in fragments
    assert "'1' (begins with the token '1'" in synonyms and "'12'" in synonyms and "`spellings`" in synonyms


def test_half_a_letter_is_shown_as_its_token(tokenizer):
    (line,) = describe_doubts(LabelSpace(["\u8f83\u597d", "no"]).bind(tokenizer))
    assert "\ufffd" not in line
