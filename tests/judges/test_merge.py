"""What cannot be merged. That a merged judge reads as its adapter is tested where adapters are trained."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import LABELS, make_records, make_tiny_model
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaForCausalLM

from distjudge_trl import Judge
from distjudge_trl.calibration.conformal import LabelSets
from distjudge_trl.calibration.scaling import Scaling
from distjudge_trl.calibration.stored import Calibration
from distjudge_trl.cli import main
from distjudge_trl.judge_folder.calibration_card import update_card
from distjudge_trl.judge_folder.judge_file import JudgeFile
from distjudge_trl.judges.merge import merge
from distjudge_trl.labels import LabelSpace


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


def test_quantised_weights_are_widened_in_the_host_s_memory(tmp_path, tokenizer, monkeypatch):
    """bitsandbytes puts them on the GPU, where there is room for 4 bits and none for 32."""
    pytest.importorskip("bitsandbytes")
    model = make_tiny_model(len(tokenizer))
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "judge")
    torch.manual_seed(0)
    config = LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(tmp_path / "judge")
    JudgeFile(
        label_space=LabelSpace(LABELS).to_dict(),
        base_model=str(tmp_path / "base"),
        dtype="float32",
        quantization={"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "quant_method": "bitsandbytes"},
    ).write(tmp_path / "judge")
    expected = Judge.from_pretrained(str(tmp_path / "judge")).judge(make_records(5))
    steps, to, dequantize = [], torch.nn.Module.to, LlamaForCausalLM.dequantize

    def logged_to(self, *args, **kwargs):
        if isinstance(self, (LlamaForCausalLM, PeftModel)):
            steps.append(args[0])
        return to(self, *args, **kwargs)

    def logged_dequantize(self, *args, **kwargs):
        steps.append("dequantize")
        return dequantize(self, *args, **kwargs)

    monkeypatch.setattr(torch.nn.Module, "to", logged_to)
    monkeypatch.setattr(LlamaForCausalLM, "dequantize", logged_dequantize)
    merge(str(tmp_path / "judge"), tmp_path / "merged")
    assert steps[:4] == ["cpu", "dequantize", "cpu", torch.float32]
    monkeypatch.undo()
    np.testing.assert_allclose(
        Judge.from_pretrained(str(tmp_path / "merged")).judge(make_records(5)), expected, atol=5e-3
    )


def test_the_calibration_of_a_judge_is_merged_with_it(tmp_path, tokenizer):
    model = make_tiny_model(len(tokenizer))
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "judge")
    config = LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(tmp_path / "judge")
    scaling, sets = Scaling(np.full(5, 0.5), np.zeros(5)), LabelSets(0.9, "sets", 0.7, 50, 50)
    calibration = Calibration(scaling, "temperature", 50, sets, {"task": "mine"})
    file = JudgeFile(
        LabelSpace(LABELS).to_dict(), base_model=str(tmp_path / "base"), calibration=calibration.to_dict()
    )
    file.write(tmp_path / "judge")
    update_card(tmp_path / "judge", calibration)
    merge(str(tmp_path / "judge"), tmp_path / "merged")
    assert JudgeFile.read(tmp_path / "merged").calibration == calibration.to_dict()
    assert "| promised coverage | 0.9 |" in (tmp_path / "merged" / "README.md").read_text()
    judges = [Judge.from_pretrained(str(tmp_path / name)) for name in ("judge", "merged")]
    (adapter, merged), records = judges, make_records(5)
    np.testing.assert_allclose(merged.judge(records), adapter.judge(records), atol=1e-5)
    uncalibrated = Judge.from_pretrained(str(tmp_path / "merged"), calibrated=False).read(records).log_probs
    np.testing.assert_allclose(merged.read(records).log_probs, scaling(uncalibrated), atol=1e-6)
