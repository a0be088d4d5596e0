"""Which items a judge was trained on: kept as hashes, left out later."""

import pytest
from conftest import make_records

from distjudge_trl.errors import UserInputError
from distjudge_trl.judge_folder.training_items import SeenItems


RECORDS = make_records(20)


def test_what_was_seen_is_left_out_by_group_or_id(tmp_path):
    SeenItems.of(RECORDS.select([0, 4])).write(tmp_path)
    seen = SeenItems.read(tmp_path)
    assert seen.unseen(RECORDS, "id")["id"] == [f"item-{i}" for i in range(20) if i not in (0, 4)]
    # Two items a group: 0 and 1, 4 and 5.
    assert seen.unseen(RECORDS)["id"] == [f"item-{i}" for i in range(20) if i not in (0, 1, 4, 5)]
    assert seen.unseen(make_records(3, seed=1).map(lambda row: {"id": row["id"] + "x", "group": "new"})).num_rows == 3


def test_what_was_held_out_is_no_test_item_either(tmp_path):
    SeenItems.of(RECORDS.select([0]), RECORDS.select([4])).write(tmp_path)
    seen = SeenItems.read(tmp_path)
    assert seen.unseen(RECORDS, "id")["id"] == [f"item-{i}" for i in range(20) if i not in (0, 4)]
    assert seen.unseen(RECORDS)["id"] == [f"item-{i}" for i in range(20) if i not in (0, 1, 4, 5)]
    to_calibrate = seen.unseen(RECORDS, "id", held_out_too=False)
    assert to_calibrate["id"] == [f"item-{i}" for i in range(20) if i != 0]


def test_no_text_of_the_data_is_kept(tmp_path):
    SeenItems.of(RECORDS).write(tmp_path)
    assert "item" not in (tmp_path / "training_items.json").read_text()


def test_missing_and_damaged_files(tmp_path):
    assert SeenItems.read(tmp_path) is None
    for content in ("{", "[]", '{"ids": []}', '{"ids": 1, "groups": []}'):
        (tmp_path / "training_items.json").write_text(content)
        with pytest.raises(UserInputError, match=r"training_items.json: is damaged"):
            SeenItems.read(tmp_path)
