"""Processes that die come back, ones with a wrong configuration stay down, and the list says who they are."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.supervisor import LIST_NAME, Program, Supervisor, read_list

ROOT = Path(__file__).parents[2]
WAIT_S = 20.0


def program(folder: Path, name: str, source: str) -> Program:
    return Program(name, "test", folder, [sys.executable, "-c", source])


async def wait_for(is_done: object) -> None:
    end = asyncio.get_running_loop().time() + WAIT_S
    while not is_done():  # type: ignore[operator]
        assert asyncio.get_running_loop().time() < end, "waited too long"
        await asyncio.sleep(0.02)


def test_killed_process_comes_back(tmp_path: Path) -> None:
    async def main() -> None:
        supervisor = Supervisor(tmp_path)
        await supervisor.start(program(tmp_path, "sleeper", "import time; print('up'); time.sleep(600)"))
        await supervisor.wait_line("sleeper", lambda line: line == "up", WAIT_S)
        first = read_list(tmp_path)[0]["pid"]
        assert isinstance(first, int)
        os.kill(first, signal.SIGKILL)
        await wait_for(lambda: supervisor.running["sleeper"].starts == 2)
        second = read_list(tmp_path)[0]["pid"]
        assert second != first and supervisor.is_running("sleeper")
        await supervisor.stop()
        assert read_list(tmp_path) == [] and not supervisor.is_running("sleeper")

    asyncio.run(main())


def test_wrong_configuration_stays_down(tmp_path: Path) -> None:
    async def main() -> None:
        told: list[str] = []
        supervisor = Supervisor(tmp_path, told.append)
        await supervisor.start(program(tmp_path, "broken", "import sys; print('gateway.toml:3: area'); sys.exit(2)"))
        await wait_for(lambda: supervisor.running["broken"].is_down_for_good)
        assert "gateway.toml:3" in told[0] and supervisor.running["broken"].starts == 1
        with pytest.raises(ChildProcessError, match="gave up"):
            await supervisor.wait_line("broken", lambda line: line == "ready", WAIT_S)
        await supervisor.stop()

    asyncio.run(main())


def test_one_that_ignores_the_question_is_killed(tmp_path: Path) -> None:
    async def main() -> None:
        supervisor = Supervisor(tmp_path)
        deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(600)"
        running = await supervisor.start(program(tmp_path, "deaf", deaf))
        await supervisor.wait_line("deaf", lambda line: line == "up", WAIT_S)
        await supervisor.end("deaf", 0.2)
        assert running.process is not None and running.process.returncode == -signal.SIGKILL
        await supervisor.stop()

    asyncio.run(main())


SUPERVISING = """
import asyncio, sys
from pathlib import Path
from deploy.supervisor import Program, Supervisor
async def main():
    supervisor = Supervisor(Path(sys.argv[1]))
    for name, source in zip(("good", "deaf"), sys.argv[2:]):
        await supervisor.start(Program(name, "test", Path(sys.argv[1]), [sys.executable, "-c", source]))
        await supervisor.wait_line(name, lambda line: line == "up", 20.0)
    print("up", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
GOOD = "import time; print('up'); time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(600)"


def supervise(folder: Path) -> subprocess.Popen[str]:
    """A supervisor in a process of its own, with a program that ends when asked and one that does not."""
    process = subprocess.Popen([sys.executable, "-c", SUPERVISING, str(folder), GOOD, DEAF], cwd=ROOT,
                               stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    return process


def is_gone(pid: int) -> bool:
    """A process that ended, whether or not somebody has asked for its exit code, has no command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() == b""
    except OSError:
        return True


def test_one_supervisor_per_folder(tmp_path: Path) -> None:
    with supervise(tmp_path) as first:
        try:
            assert len(read_list(tmp_path)) == 2
            with pytest.raises(OSError, match="run by another process already"):
                Supervisor(tmp_path)
        finally:
            deaf = next(row["pid"] for row in read_list(tmp_path) if row["name"] == "deaf")
            first.terminate()
            os.kill(deaf, signal.SIGKILL)


def test_killed_supervisor(tmp_path: Path) -> None:
    """Its list counts for nothing, its children are told by the kernel, and the next supervisor ends the deaf one."""
    with supervise(tmp_path) as first:
        pids = {row["name"]: row["pid"] for row in read_list(tmp_path)}
        first.kill()
    assert read_list(tmp_path) == []

    async def main() -> None:
        await wait_for(lambda: is_gone(pids["good"]))
        assert not is_gone(pids["deaf"])
        told: list[str] = []
        supervisor = Supervisor(tmp_path, told.append, stop_s=0.3)
        await supervisor.start(program(tmp_path, "good", GOOD))
        assert is_gone(pids["deaf"])
        assert told and all(f"deaf (process {pids['deaf']})" in line for line in told)
        assert [row["name"] for row in read_list(tmp_path)] == ["good"]
        await supervisor.stop()

    asyncio.run(main())


def test_a_process_id_that_is_anothers_by_now(tmp_path: Path) -> None:
    """Only the process that the list means is ended: same id and same command line."""
    row = {"name": "old", "kind": "test", "folder": "", "pid": os.getpid(), "starts": 1, "exit_code": None,
           "command": ["another", "program"]}
    (tmp_path / LIST_NAME).write_text(json.dumps({"pid": 1, "processes": [row]}))

    async def main() -> None:
        told: list[str] = []
        supervisor = Supervisor(tmp_path, told.append, stop_s=0.3)
        await supervisor.start(program(tmp_path, "good", GOOD))
        assert told == []
        await supervisor.stop()

    asyncio.run(main())
