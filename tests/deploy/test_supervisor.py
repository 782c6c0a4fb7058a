"""Processes that die come back, ones with a wrong configuration stay down, and the list says who they are."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from deploy.supervisor import Program, Supervisor, read_list

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
