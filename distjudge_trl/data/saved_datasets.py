"""Data sets that the `datasets` library saved to a folder (`save_to_disk`)."""

from __future__ import annotations

import json
from pathlib import Path

from distjudge_trl.errors import UserInputError, listing


def saved_dataset(folder: Path) -> list[Path] | None:
    """The Arrow files of a saved data set, in their order; `None` if the folder is none.

    Raises:
        [`UserInputError`]: the folder has several splits, or lacks a file.
    """
    if (folder / "dataset_dict.json").is_file():
        splits = sorted(file.parent.name for file in folder.glob("*/state.json"))
        raise UserInputError(
            f"{folder}: is a saved data set with the splits {listing(splits)}. Name the folder of one, such as"
            f" {folder / (splits[0] if splits else 'train')}."
        )
    if not ((folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()):
        return None
    try:
        state = json.loads((folder / "state.json").read_bytes())
        files = [folder / Path(entry["filename"]).name for entry in state["_data_files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserInputError(f"{folder / 'state.json'}: is damaged ({error}). Save the data set again.") from None
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise UserInputError(f"{folder}: lacks {listing(missing)} of the saved data set. Copy the complete folder.")
    return files
