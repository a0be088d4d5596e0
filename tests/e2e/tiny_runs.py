"""What the distributed tests and `compatibility.py` share: launching `tiny_run.py` in one process, in
several or on two hosts, killing it, and comparing trajectories.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import psutil
import yaml
from conftest import LABELS, ROOT, make_records, make_tiny_model


SETTINGS = (
    *("--max_steps", "10", "--learning_rate", "1e-3", "--lr_scheduler_type", "constant", "--logging_steps", "1"),
    *("--bf16", "False", "--use_cpu", "True", "--report_to", "none", "--disable_tqdm", "True"),
    *(
        "--save_strategy",
        "no",
        "--gradient_checkpointing",
        "False",
        "--per_device_eval_batch_size",
        "2",
        "--seed",
        "7",
    ),
    # Launched runs pack all batches; what they are compared with packs none.
    *("--share_prefixes", "True"),
)
LOGGED = ("loss", "grad_norm", "kl", "ce", "adversarial_gain", "label_mass", "accuracy")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
EIGHT, HALF = (("--per_device_train_batch_size", size) for size in ("8", "4"))
FOUR = ("--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "4")
# Of two processes; 21 rows run out before the epoch's last step is full.
ONE_BY_FOUR = ("--per_device_train_batch_size", "1", "--gradient_accumulation_steps", "4")
LORA = ("--use_peft", "--lora_target_modules", "q_proj", "v_proj", "--lora_dropout", "0")
# TRL keeps adapters on 4-bit weights in bfloat16, whatever the dtype: gradients have eight significant bits.
QLORA = (*LORA, "--load_in_4bit", "--use_bnb_nested_quant", "--dtype", "float32")
CHECKPOINTING = ("--gradient_checkpointing", "True")
SAVING = ("--save_strategy", "steps", "--save_steps", "4")


def accelerate(config, *options):
    """The launch line; a free port, so that tests may run side by side."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    return [*launcher, "--main_process_port", "0", *options]


def cpu_twin(name, folder):
    """A shipped config, two processes on the CPU. Its precision stays: `--bf16 False` is stronger."""
    content = yaml.safe_load((ROOT / f"accelerate_configs/{name}.yaml").read_text())
    content |= {"use_cpu": True, "num_processes": 2}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


class RunError(AssertionError):
    """A run ended with an exit code other than 0; the message is the end of what it printed."""


class TinyRuns:
    """Runs of the tiny model in one folder. `python`, here or of one run, is what stands for `sys.executable`."""

    def __init__(self, folder, tokenizer, python=sys.executable):
        self.folder, self.python = folder, python
        self._references = {}
        # 4-bit blocks hold 64 numbers.
        for size, name in ((32, "model"), (64, "wide")):
            make_tiny_model(len(tokenizer), size).save_pretrained(folder / name)
            tokenizer.save_pretrained(folder / name)

    def command(self, name, launcher, *options, script="tiny_run.py", python=None):
        launcher = [python or self.python if word == sys.executable else word for word in launcher]
        model = self.folder / ("wide" if "--load_in_4bit" in options else "model")
        arguments = [str(ROOT / "tests/e2e" / script), str(self.folder / f"{name}.json"), str(model)]
        return [*launcher, *arguments, "--output_dir", str(self.folder / name), *SETTINGS, *options]

    def start(self, name, launcher, *options, script="tiny_run.py", python=None, log="log", **environment):
        """Start a run; what it prints goes to a file."""
        path = self.folder / f"{name}.{log}"
        with path.open("w") as file:
            process = subprocess.Popen(
                self.command(name, launcher, *options, script=script, python=python),
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
                stdout=file,
                stderr=file,
            )
        process.log = path
        return process

    def finish(self, name, *processes, timeout=600):
        """Wait for the processes of a run; returns what it wrote and the folder of the judge."""
        for process in processes:
            if process.wait(timeout) != 0:
                raise RunError(process.log.read_text()[-3000:])
        return json.loads((self.folder / f"{name}.json").read_text()), self.folder / name

    def run(self, name, launcher, *options, script="tiny_run.py", python=None):
        return self.finish(name, self.start(name, launcher, *options, script=script, python=python))

    def run_until_killed(self, name, launcher, *options, step, python=None):
        """Let both processes of a run make `step` steps, and kill -9 all of it."""
        process = self.start(name, launcher, *options, python=python, PAUSE_AFTER=str(step))
        kill(process, *self.wait_until_paused(name, 2, process))
        return self.folder / name

    def wait_until_paused(self, name, count, *processes):
        """Ids of the processes that wait."""
        deadline = time.monotonic() + 300
        while len(paused := list((self.folder / name).glob("paused-*"))) < count:
            for process in processes:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RunError(process.log.read_text()[-3000:])
            time.sleep(0.02)
        numbers = [int(path.name.split("-")[-1]) for path in paused]
        for path in paused:
            path.unlink()
        return numbers

    def reference(self, options=()):
        """What one process with a batch of 8 does, by the options that every run of a comparison shares."""
        if options not in self._references:
            name = "-".join(["one", *(option.strip("-") for option in options)])
            result, folder = self.run(name, [sys.executable], *EIGHT, *options, "--share_prefixes", "False")
            assert result["world_size"] == 1 and len(result["steps"]) == 10
            self._references[options] = result, folder
        return self._references[options]

    def assert_follows(self, name, result, folder, common=()):
        """10 steps, metrics and judge of `reference(common)`."""
        # Checkpointing changes nothing: it is compared with a run without.
        expected, judge = self.reference(() if common == CHECKPOINTING else common)
        values, wanted = trajectory(result), trajectory(expected)
        assert len(values) == 10
        worst = np.abs((values - wanted) / np.maximum(np.abs(wanted), 1e-9))[:, :2].max()
        print(f"{name}: 10 steps, largest relative difference of loss and gradient norm {worst:.1e}")
        assert result["num_predictions"] == 11
        if common == QLORA:
            np.testing.assert_allclose(values[0, [0, 2, 3]], wanted[0, [0, 2, 3]], rtol=1e-5)
            np.testing.assert_allclose(values[:, :4], wanted[:, :4], rtol=5e-2)
            assert_same_judge(folder, judge, tolerance=5e-2)
            return worst
        np.testing.assert_allclose(values, wanted, rtol=1e-4, atol=1e-5)
        # DeepSpeed's CPU optimizer rounds otherwise; all others judge alike to the last digits.
        tolerance = 1e-5 if "offload" in name else 1e-6
        np.testing.assert_allclose(result["metrics"]["eval_kl"], expected["metrics"]["eval_kl"], rtol=tolerance)
        for metric in ("eval_ce", "eval_accuracy", "eval_label_mass", "eval_loss"):
            np.testing.assert_allclose(result["metrics"][metric], expected["metrics"][metric], rtol=1e-4, atol=1e-5)
        assert_same_judge(folder, judge)
        return worst


def trajectory(result):
    """Logged values `(steps, len(LOGGED))`."""
    return np.array([[step[key] for key in LOGGED] for step in result["steps"]])


def mean_kl(judged, records):
    """Mean KL of judged distributions `(N, K)` to the records' own."""
    from distjudge_trl.evaluation import item_kl

    return item_kl(np.array(records["label_distribution"][:]), np.log(judged)).mean()


def assert_same_judge(folder, other, tolerance=1e-4):
    from distjudge_trl import Judge

    records = make_records(5, seed=3)
    judged = [Judge.from_pretrained(str(path)).judge(records) for path in (folder, other)]
    assert judged[0].shape == (5, len(LABELS))
    np.testing.assert_allclose(*judged, atol=tolerance)


def kill(process, *others):
    """kill -9 of a launcher and all that it started: torchrun's workers have sessions of their own. `others` are ids
    of processes that it started from afar.
    """
    parent = psutil.Process(process.pid)
    members = [parent, *parent.children(recursive=True), *(psutil.Process(number) for number in others)]
    for member in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()
    assert not psutil.wait_procs(members, timeout=30)[1]


class HostsError(RuntimeError):
    """Network namespaces cannot be made here."""


HOSTS, ADDRESSES = ("distjudge0", "distjudge1"), ("10.213.7.1", "10.213.7.2")


@contextmanager
def two_hosts():
    """Two network namespaces joined by a veth pair. Raises [`HostsError`] where that is not permitted."""

    def ip(*arguments):
        try:
            done = subprocess.run(["ip", *arguments], check=False, capture_output=True, text=True)
        except OSError as error:
            raise HostsError(f"ip: {error.strerror}") from None
        if done.returncode:
            raise HostsError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")

    made = []
    try:
        for host in HOSTS:
            ip("netns", "add", host)
            made.append(host)
        ip("link", "add", "veth0", "netns", HOSTS[0], "type", "veth", "peer", "name", "veth1", "netns", HOSTS[1])
        for i, host in enumerate(HOSTS):
            ip("-n", host, "addr", "add", f"{ADDRESSES[i]}/24", "dev", f"veth{i}")
            for link in (f"veth{i}", "lo"):
                ip("-n", host, "link", "set", link, "up")
        ip("netns", "exec", HOSTS[0], "true")
        yield
    finally:
        for host in made:
            ip("netns", "delete", host)


def on_host(rank, config):
    """`accelerate launch` on one of the two hosts."""
    inside = ["ip", "netns", "exec", HOSTS[rank], "env", f"GLOO_SOCKET_IFNAME=veth{rank}"]
    where = ("--num_machines", "2", "--machine_rank", str(rank), "--main_process_ip", ADDRESSES[0])
    return [*inside, *accelerate(config, *where, "--num_processes", "2", "--main_process_port", "29511")]
