"""Two hosts, as network namespaces: the trajectory of one, and what is left when a host dies."""

import subprocess
import time

import pytest
from tiny_runs import (
    HALF,
    HOSTS,
    SAVING,
    HostsError,
    cpu_twin,
    kill,
    on_host,
    two_hosts,
)


@pytest.fixture(scope="module")
def hosts():
    try:
        with two_hosts():
            yield
    except HostsError as error:
        pytest.skip(f"two hosts need network namespaces (root, iproute2): {error}")


@pytest.mark.parametrize(("config", "stage"), [("multi_node_zero3", 3), ("multi_gpu", None)])
def test_two_hosts_follow_the_trajectory_of_one_process(tiny_runs, hosts, tmp_path, config, stage):
    path, name = cpu_twin(config, tmp_path), f"two hosts, {config}"
    processes = [tiny_runs.start(name, on_host(rank, path), *HALF, log=f"log{rank}") for rank in (0, 1)]
    result, folder = tiny_runs.finish(name, *processes)
    assert result["world_size"] == 2 and result["zero_stage"] == stage
    tiny_runs.assert_follows(name, result, folder)


@pytest.mark.parametrize("death", ["its processes are killed", "its link is cut"])
def test_when_a_host_dies_the_other_ends_with_a_clear_error_and_the_run_resumes(tiny_runs, hosts, tmp_path, death):
    path, name = cpu_twin("multi_gpu", tmp_path), f"host dies, {death}"
    options = (*HALF, *SAVING, "--ddp_timeout", "20")
    # The second host stops after step 5; the first waits for it within step 6.
    survivor = tiny_runs.start(name, on_host(0, path), *options, log="log0")
    dying = tiny_runs.start(name, on_host(1, path), *options, log="log1", PAUSE_AFTER="5")
    waiting = tiny_runs.wait_until_paused(name, 1, survivor, dying)
    try:
        if death == "its link is cut":
            subprocess.run(["ip", "-n", HOSTS[1], "link", "set", "veth1", "down"], check=True)
        else:
            kill(dying, *waiting)
        start = time.monotonic()
        assert survivor.wait(120) == 1
        seconds = time.monotonic() - start
    finally:
        subprocess.run(["ip", "-n", HOSTS[1], "link", "set", "veth1", "up"], check=True)
        for process in (survivor, dying):
            if process.poll() is None:
                kill(process)
    print(f"{name}: the other ends after {seconds:.0f} s with --ddp_timeout 20")
    assert seconds < 60
    errors = [line for line in survivor.log.read_text().splitlines() if "error: " in line]
    assert any("step 6: lost the connection to another process" in line for line in errors), survivor.log.read_text()
    assert any("--resume_from_checkpoint true" in line for line in errors)

    resumed = (*HALF, *SAVING, "--resume_from_checkpoint", "true")
    processes = [tiny_runs.start(name, on_host(rank, path), *resumed, log=f"log{rank}") for rank in (0, 1)]
    result, folder = tiny_runs.finish(name, *processes)
    tiny_runs.assert_follows(f"{name}, resumed with it back", result, folder)
