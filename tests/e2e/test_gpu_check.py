"""`scripts/gpu_check.py` on the CPU, with tiny models: checks of what no other end-to-end test compares."""

import json
import subprocess

import pytest
import torch
from conftest import ROOT

from distjudge_trl.errors import UserInputError


ONLY = ("environment", "padding", "prefixes", "adversary")


@pytest.fixture(scope="module")
def checked(tmp_path_factory, bundled_model, warm_python):
    """What the command printed, the folder of its report, and its work folder."""
    folder = tmp_path_factory.mktemp("checked")
    command = [warm_python, str(ROOT / "scripts/gpu_check.py"), "--cpu", "--tiny", "--only", ",".join(ONLY)]
    command += ["--out", str(folder / "out"), "--work", str(folder / "work")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=900, cwd=folder)
    return done, folder / "out", folder / "work"


def test_checks_pass_on_a_cpu_and_leave_a_report(checked):
    done, out, _ = checked
    report = (out / "gpu_check_report.md").read_text(encoding="utf-8")
    assert done.returncode == 0, done.stdout + report
    lines = done.stdout.splitlines()
    # The weights are made first, for those that read them.
    assert [line.split()[0] for line in lines if " PASS " in line] == [
        *("environment", "weights", "padding", "prefixes", "adversary"),
    ]
    assert f"5 passed, 0 failed, 0 skipped. Report: {out / 'gpu_check_report.md'}" in lines[-1]
    assert "torch: " in report
    rows = {line.split(" | ")[0].strip("| "): line for line in report.splitlines() if line.startswith("| ")}
    assert "| PASS |" in rows["padding"] and "sdpa against eager: relative difference of losses" in rows["padding"]
    assert " padded, " in rows["prefixes"] and " packed (" in rows["prefixes"]


@pytest.mark.parametrize("name", ["padding", "prefixes"])
def test_a_mask_that_is_not_honoured_is_found(checked, tmp_path, monkeypatch, name):
    """In the second of the two runs that are compared, rows see their padding, or other rows of their pack: the
    trainer refuses to pack at all then.
    """
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from gpu_checks import attention
    from gpu_checks.check import Findings, Machine

    attend, fit = torch.nn.functional.scaled_dot_product_attention, attention.fit
    runs = []

    def attend_to_all(query, key, value, attn_mask=None, is_causal=False, **options):
        if len(runs) == 2:
            attn_mask, is_causal = None, True
        return attend(query, key, value, attn_mask=attn_mask, is_causal=is_causal, **options)

    def counted(*args, **options):
        runs.append(options)
        return fit(*args, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attend_to_all)
    monkeypatch.setattr(attention, "fit", counted)
    machine = Machine("cpu", 0, True, str(checked[2]))
    (check,) = (check for check in attention.CHECKS if check.name == name)
    if name == "prefixes":
        with pytest.raises(UserInputError, match="a row's logits in a pack differ from those of the row alone"):
            check.function(Findings(machine, tmp_path), *check.args)
        return
    check.function(Findings(machine, tmp_path), *check.args)
    found = [json.loads(line) for line in (tmp_path / Findings.FILE).read_text().splitlines()]
    failed = [entry["text"] for entry in found if entry["kind"] == "failed"]
    assert len(runs) == 2 and sum("loss of step" in text for text in failed) == 3, found
