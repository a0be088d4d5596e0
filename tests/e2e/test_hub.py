"""A judge is pushed while it is trained, and fetched by its name: the real client, a hub on this machine."""

import json
import os
import subprocess
import sys

import numpy as np
from conftest import ROOT, make_records
from hub import model_hub
from tiny_runs import EIGHT, LORA

from distjudge_trl import Judge


FETCH = """
import json, sys
sys.path.insert(0, "tests")
from conftest import make_records
from distjudge_trl import Judge
print(json.dumps(Judge.from_pretrained("me/judge").judge(make_records(5, seed=3)).tolist()))
"""


def test_an_adapter_is_pushed_and_found_again_by_its_name(tiny_runs, tmp_path):
    with model_hub() as (environment, repositories):
        options = ("--push_to_hub", "True", "--hub_model_id", "me/judge")
        process = tiny_runs.start("pushed", [sys.executable], *EIGHT, *LORA, *options, **environment)
        _, folder = tiny_runs.finish("pushed", process)
        pushed = repositories["me/judge"]
        assert {"adapter_model.safetensors", "adapter_config.json", "judge.json", "README.md"} <= set(pushed)
        assert "model.safetensors" not in pushed, "the base model is named, not pushed"
        assert pushed["adapter_model.safetensors"] == (folder / "adapter_model.safetensors").read_bytes()
        assert "distjudge-trl" in pushed["README.md"].decode() and json.loads(pushed["judge.json"])["base_model"]
        done = subprocess.run(
            [sys.executable, "-c", FETCH],
            check=False,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, **environment, "HF_HOME": str(tmp_path)},
        )
    assert done.returncode == 0, done.stderr[-3000:]
    fetched = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(fetched, Judge.from_pretrained(str(folder)).judge(make_records(5, seed=3)), atol=1e-6)
