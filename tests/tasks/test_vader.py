"""The vader task: the real lexicon where it is installed, and its errors on small files."""

from collections import Counter
from pathlib import Path

import pytest

from distjudge_trl.data import split_records
from distjudge_trl.errors import JudgmentDataError, UserInputError
from distjudge_trl.tasks import get_task
from distjudge_trl.tasks.word_families import word_families


@pytest.fixture(scope="module")
def records():
    pytest.importorskip("vaderSentiment")
    return get_task("vader").load()


def test_every_line_of_the_lexicon_becomes_a_record(records):
    import vaderSentiment

    lexicon = Path(vaderSentiment.__file__).parent / "vader_lexicon.txt"
    lines = [line for line in lexicon.read_text(encoding="utf-8").split("\n") if line.strip()]
    assert len(records) == len(lines) > 7000
    assert len(set(records["id"])) == len(records)


def test_a_known_line(records):
    """`abandon`'s ratings, shifted by five: -1 is label 4."""
    row = next(row for row in records if row["id"] == "abandon")
    assert row["num_annotators"] == 10
    assert sum(p * (k + 1) for k, p in enumerate(row["label_distribution"])) == pytest.approx(5 - 1.9)
    assert "Expression: abandon" in row["prompt"][-1]["content"]
    assert row["completion"] == [{"role": "assistant", "content": "3"}]


def test_the_instruction_comes_first_and_is_the_same_for_all(records):
    """What prefix sharing relies on."""
    beginnings = {row["prompt"][-1]["content"].rsplit("Expression: ", 1)[0] for row in records.select(range(50))}
    assert len(beginnings) == 1


def test_group_split_leaks_no_word_family(records):
    train, test = split_records(records, "group")
    assert not set(train["group"]) & set(test["group"])
    trained = {w for w in train["id"] if w.isalpha()}
    for word in test["id"]:
        if word.isalpha() and len(word) >= 4:
            for other in (word + "s", word + "ed", word + "ly", "un" + word, word.removesuffix("s")):
                assert other == word or other not in trained, (word, other)


def test_no_family_is_so_large_that_the_split_becomes_lopsided(records):
    largest = Counter(records["group"]).most_common(1)[0][1]
    assert largest < 0.02 * len(records)


@pytest.mark.parametrize(
    "family",
    [
        ["abandon", "abandoned", "abandonment"],
        ["happy", "unhappy", "happiness", "unhappily"],
        ["evil", "evildoer"],
        ["sad", "sadder", "sadness", "saddened"],
        ["joy", "joyful", "joyless", "joyously"],
        ["looool", "lol", "loooooool"],
        [":)", ":-)", ":))", "=)"],
        ["can't stand", "cant stand"],
    ],
)
def test_relatives_are_one_family(family):
    names = word_families([*family, "zebra", "x_x"])
    assert len(set(names[: len(family)])) == 1
    assert names[-1] != names[0] != names[-2]


def test_families_do_not_depend_on_the_order():
    words = ["happy", "unhappy", "war", "warm", "glad", ":)", ":-("]
    forward = dict(zip(words, word_families(words), strict=True))
    backward = dict(zip(words[::-1], word_families(words[::-1]), strict=True))
    assert forward == backward


GOOD = "fine\t0.8\t0.9\t[1, 1, 0, 2, 1, -1, 1, 0, 2, 1]"


def write(folder, *lines, encoding="utf-8"):
    path = folder / "vader_lexicon.txt"
    path.write_bytes("\n".join(lines).encode(encoding))
    return path


def test_a_file_or_its_folder_can_be_given(tmp_path):
    path = write(tmp_path, GOOD, "")
    assert get_task("vader").load(path)["id"] == get_task("vader").load(tmp_path)["id"] == ["fine"]


def test_an_expression_rated_twice_keeps_both(tmp_path):
    assert get_task("vader").load(write(tmp_path, GOOD, GOOD))["id"] == ["fine", "fine #2"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("bad\t1.0\t[1, 2]", "row 2: has 3 tab-separated fields, not 4"),
        ("\t1.0\t1.0\t[1, 2]", "row 2, field `expression`: is empty"),
        ("bad\t1.0\t1.0\t[]", "row 2, field `ratings`: no votes"),
        ("bad\t1.0\t1.0\t[1, 2", "row 2, field `ratings`: is not a list"),
        ("bad\t1.0\t1.0\tos.system('x')", "row 2, field `ratings`: is not a list"),
        ("bad\t1.0\t1.0\t[1, 5]", "row 2, field `ratings`: unknown label 5"),
        ("bad\t1.0\t1.0\t[1, 0.5]", "row 2, field `ratings`: unknown label 0.5"),
        ("bad\t1.0\t1.0\t[1, 'a']", "row 2, field `ratings`: unknown label 'a'"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, line, message):
    path = write(tmp_path, GOOD, line)
    with pytest.raises(JudgmentDataError) as error:
        get_task("vader").load(path)
    assert str(error.value).startswith(f"{path}, {message}")


def test_non_utf8_names_the_line(tmp_path):
    with pytest.raises(JudgmentDataError, match="row 2: is not UTF-8"):
        get_task("vader").load(write(tmp_path, GOOD, GOOD.replace("fine", "caf\u00e9"), encoding="latin-1"))


def test_empty_file(tmp_path):
    with pytest.raises(JudgmentDataError, match="holds no records"):
        get_task("vader").load(write(tmp_path, ""))


def test_missing_file(tmp_path):
    with pytest.raises(UserInputError, match="no such file.*--data_path"):
        get_task("vader").load(tmp_path / "nothing.txt")
