"""Which items a judge was trained on: kept as hashes, left out later."""

import json

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


def named(*names):
    return (
        make_records(len(names))
        .remove_columns(["id", "group"])
        .add_column("id", [*names])
        .add_column("group", [*names])
    )


def test_names_of_another_task_count_unless_they_are_bare_numbers(tmp_path):
    records = named("17", "train/3", "4705552913.jpg#2r1n", "dev/9")
    theirs = SeenItems.of(named("17", "train/3", "4705552913.jpg#2r1n"))
    assert len(theirs.unseen(records)) == 1
    for by in ("group", "id"):
        assert theirs.of_another_task().unseen(records, by)["id"][:] == ["17", "train/3", "dev/9"]
    seen = SeenItems.of(named("dev/9")).after(theirs.of_another_task())
    seen.write(tmp_path)
    assert SeenItems.read(tmp_path) == seen
    assert seen.unseen(records)["id"][:] == ["17", "train/3"]
    # Of the same task everything counts.
    assert SeenItems.of(named("dev/9")).after(theirs).unseen(records).num_rows == 0


def test_a_list_of_an_earlier_version_has_nothing_of_a_start(tmp_path):
    SeenItems.of(RECORDS.select([0])).write(tmp_path)
    path = tmp_path / "training_items.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({name: content[name] for name in content if not name.startswith("earlier")}))
    assert SeenItems.read(tmp_path) == SeenItems.of(RECORDS.select([0]))
