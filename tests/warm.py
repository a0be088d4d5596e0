"""A Python that starts at once: torch, transformers, TRL and DeepSpeed, which take seconds to import, are there.

[`warm_python`] starts a process that imports them and then waits. It yields the path of a program that is called as
`python` is (`-m module`, `-c code`, `script`): the waiting process forks, and the new one goes on with the caller's
arguments, environment, folder, files and network, as a process of its own that can be killed. What it starts by
`sys.executable`, or by torchrun, is warm, too. It sees no GPU.

It is for what processes do once they run. Tests of what happens before and after (what a command imports, what an
environment variable does that is read at import, how an interpreter ends) start a real `sys.executable`; so do tests
that look for processes by their environment, which is the waiting process's here.
"""

import atexit
import contextlib
import ctypes
import gc
import json
import os
import random
import runpy
import selectors
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
from contextlib import contextmanager
from pathlib import Path


ROOT = Path(__file__).resolve().parents[1]
PRELOADED = (
    *("accelerate.commands.launch", "torch.distributed.run", "deepspeed", "bitsandbytes", "peft", "sklearn.metrics"),
    *("distjudge_trl.cli", "distjudge_trl.recipe.preflight", "distjudge_trl.recipe.run", "distjudge_trl.evaluation"),
    *("distjudge_trl.report", "distjudge_trl.judges", "distjudge_trl.sweep.run", "transformers.models.llama"),
    *("transformers.integrations.deepspeed", "peft.tuners.lora", "trl"),
)

# What runs in the caller's place: it hands everything over, passes signals on and ends as the other does.
CLIENT = """#!{python} -IS
import json, os, signal, socket, struct, sys
ask = {{"argv": sys.argv[1:], "environment": dict(os.environ), "folder": os.getcwd()}}
content = json.dumps(ask).encode()
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    network = os.open("/proc/self/ns/net", os.O_RDONLY)
    socket.send_fds(server, [struct.pack("!I", len(content))], [0, 1, 2, network])
    server.sendall(content)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: server.send(bytes([number])))
    answer = server.recv(4)
(code,) = struct.unpack("!i", answer) if len(answer) == 4 else (-signal.SIGKILL,)
if code < 0:
    signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
    os.kill(os.getpid(), -code)
os._exit(code)
"""


@contextmanager
def warm_python():
    """Yields the path of the program."""
    with tempfile.TemporaryDirectory(prefix="warm-") as folder:
        client, address = Path(folder, "python"), str(Path(folder, "socket"))
        client.write_text(CLIENT.format(python=sys.executable, address=address))
        client.chmod(client.stat().st_mode | stat.S_IXUSR)
        command = [sys.executable, __file__, str(client), address]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
        server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
        )
        try:
            assert server.stdout.readline() == "ready\n", "the process that waits did not start"
            yield str(client)
        finally:
            # Without its caller it ends, and with it what it started.
            server.stdin.close()
            server.wait()


def serve(client, address, said):
    """Fork for every caller. Returns in the new processes alone, what they are asked to do."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    network = os.stat("/proc/self/ns/net").st_ino
    waiting = selectors.DefaultSelector()
    waiting.register(listener, selectors.EVENT_READ, ("caller", None))
    waiting.register(sys.stdin, selectors.EVENT_READ, ("end", None))
    children = {}
    os.write(said, b"ready\n")
    os.close(said)
    while True:
        for key, _ in waiting.select():
            what, number = key.data
            if what == "end":
                os._exit(0)
            elif what == "caller":
                connection, _ = listener.accept()
                asked = receive(connection)
                if asked is None:
                    connection.close()
                    continue
                ask, files = asked
                number = os.fork()
                if number == 0:
                    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: ends with the waiting process
                    waiting.close()
                    listener.close()
                    connection.close()
                    for other, done in children.values():
                        other.close()
                        os.close(done)
                    return become(client, ask, files, network)
                for file in files:
                    os.close(file)
                done = os.pidfd_open(number)
                children[number] = connection, done
                waiting.register(connection, selectors.EVENT_READ, ("signal", number))
                waiting.register(done, selectors.EVENT_READ, ("done", number))
            elif number not in children:
                continue  # It ended while its signal was on the way.
            elif what == "signal":
                sent = b""
                with contextlib.suppress(OSError):
                    sent = key.fileobj.recv(1)
                # Who has closed was killed.
                os.kill(number, sent[0] if sent else signal.SIGKILL)
                if not sent:
                    waiting.unregister(key.fileobj)
            else:
                connection, done = children.pop(number)
                code = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
                waiting.unregister(done)
                os.close(done)
                with contextlib.suppress(KeyError):
                    waiting.unregister(connection)
                with contextlib.suppress(OSError):
                    connection.send(struct.pack("!i", code))
                connection.close()


def receive(connection):
    """What a caller asks for, and its files; `None` if it was killed before it had said all."""
    files = []
    with contextlib.suppress(OSError):  # among them: it has closed what we had not read
        head, files, _, _ = socket.recv_fds(connection, 4, 4)
        content = b""
        if len(head) == 4 and len(files) == 4:
            (left,) = struct.unpack("!I", head)
            while len(content) < left and (more := connection.recv(left - len(content))):
                content += more
            if len(content) == left:
                return json.loads(content), files
    for file in files:
        os.close(file)
    return None


def become(client, ask, files, network):
    """Make the caller's situation that of this process; returns its arguments."""
    os.setsid()
    for number, file in enumerate(files[:3]):
        os.dup2(file, number)
    if os.fstat(files[3]).st_ino != network and ctypes.CDLL(None, use_errno=True).setns(files[3], 0):
        raise OSError(ctypes.get_errno(), "setns")
    for file in files:
        os.close(file)
    for name in ("stdin", "stdout", "stderr"):
        number, mode = {"stdin": (0, "r"), "stdout": (1, "w"), "stderr": (2, "w")}[name]
        stream = open(number, mode, buffering=1, closefd=False, encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    os.chdir(ask["folder"])
    os.environ.clear()
    os.environ.update(ask["environment"], PYTHON_EXEC=client)
    sys.executable = client
    added = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.path[1:1] = [folder for folder in added if folder not in sys.path]
    import numpy as np
    import torch

    from distjudge_trl.runtime.threads import cores

    random.seed()
    np.random.seed()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or cores()))
    return ask["argv"]


def run(argv):
    """As `python argv` does, but for taking apart what was imported at the end, which takes seconds, too."""
    while argv[0] == "-u":
        argv = argv[1:]
    code = 0
    try:
        if argv[0] == "-m":
            sys.path[0], sys.argv = os.getcwd(), argv[1:]
            runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
        elif argv[0] == "-c":
            sys.path[0], sys.argv = "", ["-c", *argv[2:]]
            exec(compile(argv[1], "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102
        else:
            sys.path[0], sys.argv = str(Path(argv[0]).resolve().parent), argv
            runpy.run_path(argv[0], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:  # noqa: BLE001 (as an interpreter does)
        traceback.print_exc()
        code = 1
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    from importlib import import_module

    # Libraries print as they are imported.
    said = os.dup(1)
    os.dup2(2, 1)
    for name in PRELOADED:
        with contextlib.suppress(ModuleNotFoundError):
            import_module(name)
    # Collections would touch every object, and pages are copied as they are touched.
    gc.collect()
    gc.freeze()
    run(serve(*sys.argv[1:], said))
