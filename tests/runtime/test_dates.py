"""Today's date, of one process and of several."""

import os
import socket
import subprocess
from datetime import date

from conftest import ROOT

from distjudge_trl.runtime.dates import TODAY, today


RANK = """
import os, datetime
from distjudge_trl.runtime import dates
from transformers import TrainingArguments
class Later(datetime.date):
    @classmethod
    def today(cls):
        return cls(2031, 5, 6 + int(os.environ["RANK"]))
dates.date = Later
TrainingArguments(use_cpu=True)
print(dates.today(), dates.today(shared=True))
"""


def test_today_is_the_sweep_s_in_its_runs(monkeypatch):
    assert today() == today(shared=True) == date.today().isoformat()
    monkeypatch.setenv(TODAY, "2030-01-02")
    assert today() == today(shared=True) == "2030-01-02"


def test_processes_between_which_midnight_comes_agree(warm_python):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    place |= {"PYTHONPATH": str(ROOT), "LOCAL_WORLD_SIZE": "2"}
    ranks = [
        subprocess.Popen(
            [warm_python, "-c", RANK],
            env={**os.environ, **place, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    said = [rank.communicate(timeout=100)[0].splitlines()[-1] for rank in ranks]
    assert said == ["2031-05-06 2031-05-06", "2031-05-07 2031-05-06"]
