"""Exit codes of many short runs of two processes on a busy machine, with and without what the trainer does at its end.

python scripts/benchmarks/exit_codes.py [--launches 200] [--at-once 4] [--ways ddp zero2 zero3] [--without-waiting]

On a CPU a thread of Gloo may still free the tensors of a collective when its process ends; Python aborts the process
then (exit code -6), with all its work done. The trainer waits for these threads
(`distjudge_trl/trainer/process_exit.py`).
Here every launch trains a tiny model for two steps, evaluates it and ends as a recipe does; several launches run at
once and fight for the cores. Both processes of a launch are forked off one that has imported the libraries, which is
what most of a short run's time goes to; they end as any interpreter does.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any


import distjudge_trl  # noqa: F401  # isort: skip (before torch: it says how OpenMP's threads wait)


ROOT = Path(__file__).resolve().parents[2]
WAYS = ("ddp", "zero2", "zero3")
# Of a launcher that has started the one process that forks all others.
_OF_ONE_PROCESS = ("TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--launches", type=int, default=200, help="of all ways together; default: 200")
    parser.add_argument("--at-once", type=int, default=4, help="launches that run side by side; default: 4")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help="default: all")
    parser.add_argument("--without-waiting", action="store_true", help="leave out what the trainer does at its end")
    parser.add_argument("--forks", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.forks:
        way, folder = args.forks
        fork_launches(way, Path(folder), args.launches, args.at_once, args.without_waiting)
        return
    print("| way | launches | exit codes of processes | seconds a launch |\n|---|---|---|---|", flush=True)
    for number, way in enumerate(args.ways):
        count = args.launches // len(args.ways) + (number < args.launches % len(args.ways))
        # Made and deleted here: a process that is forked off in the block of another would delete it as that ends.
        with tempfile.TemporaryDirectory() as folder:
            options = ["--launches", str(count), "--at-once", str(args.at_once), "--forks", way, folder]
            command = [*launcher(way), __file__, *options, *(["--without-waiting"] if args.without_waiting else [])]
            subprocess.run(command, check=True, env={**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"})


def launcher(way: str) -> list[str]:
    """Of one process, with the environment of the way."""
    if way == "ddp":
        return [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "1", "--standalone"]
    config = ROOT / "accelerate_configs" / f"{way}_cpu.yaml"
    one = ["--num_processes", "1", "--main_process_port", "0"]
    return [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config), *one]


def fork_launches(way: str, folder: Path, launches: int, at_once: int, without_waiting: bool) -> None:
    """Start launches until all are done, `at_once` at a time, and print a row of the table."""
    for name in _OF_ONE_PROCESS:
        os.environ.pop(name, None)
    import distjudge_trl.trainer.resuming as trainer_module

    tokenizer, model = make_model()
    if way != "ddp":
        import deepspeed  # noqa: F401
    if without_waiting:
        trainer_module.let_threads_finish = lambda: None
    codes: Counter[int] = Counter()
    running: dict[int, int] = {}  # process to launch
    begun, begin = 0, time.monotonic()
    while begun < launches or running:
        while begun < launches and len({*running.values()}) < at_once:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            for rank in range(2):
                process = os.fork()
                if not process:
                    train(rank, port, folder / f"{begun}", tokenizer, model)
                    sys.exit(0)
                running[process] = begun
            begun += 1
        process, status = os.wait()
        code = os.waitstatus_to_exitcode(status)
        codes[code] += 1
        launch = running.pop(process)
        if code:
            print((folder / f"{launch}.log").read_text()[-2000:], file=sys.stderr, flush=True)
    summary = ", ".join(f"{code}: {count}" for code, count in sorted(codes.items(), reverse=True))
    print(f"| {way} | {launches} | {summary} | {(time.monotonic() - begin) / launches:.1f} |", flush=True)


def make_model() -> tuple[Any, Any]:
    """A tokenizer and a tiny random model, and with them all that a run imports."""
    import peft  # noqa: F401
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from distjudge_trl.modeling.bundled import resolve_model

    tokenizer = AutoTokenizer.from_pretrained(resolve_model("smollm2-135m"))
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return tokenizer, LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes, **heads))


def train(rank: int, port: int, folder: Path, tokenizer: Any, model: Any) -> None:
    """One process of a launch."""
    log = os.open(f"{folder}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    from distjudge_trl import DistributionSFTConfig, DistributionSFTTrainer, LabelSpace
    from distjudge_trl.data import build_dataset, make_record

    space = LabelSpace(["A", "B"])
    texts = [f"A or B? {'word ' * i}" for i in range(8)]
    rows = [
        make_record(
            id=text,
            group=text,
            prompt=[{"role": "user", "content": text}],
            counts=[1 + i % 3, 1],
            label_space=space,
        )
        for i, text in enumerate(texts)
    ]
    records = build_dataset(rows, space)
    args = DistributionSFTConfig(
        str(folder),
        max_steps=2,
        per_device_train_batch_size=2,
        bf16=False,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        gradient_checkpointing=False,
    )
    trainer = DistributionSFTTrainer(
        model=model, args=args, train_dataset=records, processing_class=tokenizer, label_space=space
    )
    trainer.train()
    trainer.predict(records)
    trainer.end()


if __name__ == "__main__":
    main()
