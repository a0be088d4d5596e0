"""What cannot be merged. That a merged judge reads as its adapter is tested where adapters are trained."""

import pytest
from click.testing import CliRunner

from distjudge_trl.cli import main


@pytest.mark.parametrize(
    ("model", "out", "message"),
    [
        ("nowhere", "new", "holds no adapter to merge."),
        ("plain", "new", "holds no adapter to merge."),
        ("adapter", "full", "exists. Choose another --out."),
        ("adapter", "full/file", "cannot be written"),
        ("judge", "new", "it is a full model already."),
    ],
)
def test_what_cannot_be_merged_is_one_line(tmp_path, tiny_model, model, out, message):
    from distjudge_trl.judge_file import JudgeFile
    from distjudge_trl.labels import LabelSpace

    tiny_model.save_pretrained(tmp_path / "plain")
    for name in ("judge", "adapter"):
        (tmp_path / name).mkdir()
        JudgeFile(label_space=LabelSpace(["A", "B"]).to_dict()).write(tmp_path / name)
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("kept")
    if out == "full/file":
        out = "full/file/below"
    done = CliRunner().invoke(main, ["merge", "--model", str(tmp_path / model), "--out", str(tmp_path / out)])
    assert done.exit_code == 2 and message in done.output, done.output
    assert done.output.count("\n") == 1
    assert (tmp_path / "full" / "file").read_text() == "kept" and not (tmp_path / "new").exists()
