"""truth.csv: a row for every step, none lost by a kill, the same after a restart, and no second truth."""

import asyncio
from pathlib import Path

import pytest

from sim_hardware.config import SimConfig
from sim_hardware.errors import SimError
from sim_hardware.simulator import Simulator, run
from sim_hardware.truth import HEADER, TruthFile, read_truth, rows_of
from tests.sim_hardware.bench import DAY_MS, MIDNIGHT_MS, HandClock, meter, play, running, tcp

TWO = meter(1, 1, day="table4:LA1"), meter(2, 2, "pzem004t")


def let_run(config: SimConfig, clock: HandClock, *moments_ms: int) -> None:
    """Start a simulator and set its clock to one moment after the other."""
    async def scene() -> None:
        async with running(config, clock) as bench:
            for moment_ms in moments_ms:
                clock.time_ms = moment_ms
                bench.simulator.advance()
    play(scene())


def test_every_step_has_its_row_also_when_the_clock_jumps(tmp_path: Path) -> None:
    path = tmp_path / "truth.csv"
    let_run(tcp(*TWO, truth=path), HandClock(), MIDNIGHT_MS + 59_999, MIDNIGHT_MS + 60_000, MIDNIGHT_MS + 1_000_001)
    assert [(row.point, row.time_ms) for row in rows_of(path)] == [
        (point, MIDNIGHT_MS + minute * 60_000) for minute in range(17) for point in (1, 2)]
    assert path.read_text().splitlines()[0] == HEADER


def test_the_simulator_follows_the_clock_by_itself(tmp_path: Path) -> None:
    """`run` writes rows at the step's start, with no master asking."""
    path, clock = tmp_path / "truth.csv", HandClock()
    ready = asyncio.Event()

    async def scene() -> None:
        stop = asyncio.Event()
        serving = asyncio.create_task(run(tcp(*TWO, truth=path), clock, stop, lambda facts: ready.set()))
        await asyncio.wait_for(ready.wait(), 5)
        for minute in range(1, 4):
            clock.time_ms = MIDNIGHT_MS + minute * 60_000
            async with asyncio.timeout(5):
                while len(list(rows_of(path))) < 2 * (minute + 1):
                    await asyncio.sleep(0.005)
        stop.set()
        await asyncio.wait_for(serving, 5)
    play(scene())
    assert [row.time_ms for row in rows_of(path)][-1] == MIDNIGHT_MS + 180_000


def test_a_restart_goes_on_as_the_same_meters(tmp_path: Path) -> None:
    """Stopped in the middle of the second day and started again: together the file of one that ran through."""
    through, broken = tmp_path / "through.csv", tmp_path / "broken.csv"
    middle, end = MIDNIGHT_MS + DAY_MS + 40_000_000, MIDNIGHT_MS + DAY_MS + 60_000_000
    step = {"step_s": 3600}
    let_run(tcp(*TWO, truth=through, **step), HandClock(), end)
    let_run(tcp(*TWO, truth=broken, **step), HandClock(), middle)
    let_run(tcp(*TWO, truth=broken, **step), HandClock(middle), end)
    assert broken.read_bytes() == through.read_bytes()
    let_run(tcp(*TWO, truth=broken, **step), HandClock(end), end)
    assert broken.read_bytes() == through.read_bytes(), "a restart within a step writes nothing twice"


def test_steps_of_a_stopped_simulator_have_no_rows(tmp_path: Path) -> None:
    """Nobody could read a meter that was not there; its counters went on."""
    path = tmp_path / "truth.csv"
    let_run(tcp(*TWO, truth=path), HandClock())
    let_run(tcp(*TWO, truth=path), HandClock(MIDNIGHT_MS + 7_200_000))
    assert [row.time_ms for row in rows_of(path) if row.point == 1] == [MIDNIGHT_MS, MIDNIGHT_MS + 7_200_000]
    truth = read_truth(path)
    used = [truth[1, moment]["energy_active_import_total"] for moment in (MIDNIGHT_MS, MIDNIGHT_MS + 7_200_000)]
    assert abs(used[1] - used[0] - 36_360 - 19_200) <= 1, "two hours of the paper's first enterprise, rounded Wh"


def test_a_torn_last_line_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "truth.csv"
    let_run(tcp(*TWO, truth=path), HandClock(), MIDNIGHT_MS + 120_000)
    whole = path.read_bytes()
    for cut in (1, 30, len(whole.splitlines(keepends=True)[-1]) + 5):
        path.write_bytes(whole[:-cut])
        let_run(tcp(*TWO, truth=path), HandClock(MIDNIGHT_MS + 120_000))
        assert path.read_bytes() == whole
    path.write_bytes(HEADER[:7].encode())
    TruthFile(path).close()
    assert path.read_text() == HEADER + "\n"


@pytest.mark.parametrize("change", [{"seed": 8}, {"step_s": 3600}, {"buses": tcp(meter(1, 1)).buses},
                                    {"buses": tcp(meter(1, 7, day="table4:LA1")).buses}])
def test_other_meters_may_not_continue_a_file(tmp_path: Path, change: dict) -> None:
    path = tmp_path / "truth.csv"
    let_run(tcp(*TWO, truth=path), HandClock(), MIDNIGHT_MS + 60_000)
    before = path.read_bytes()
    config = tcp(*TWO, truth=path)
    with pytest.raises(SimError) as caught:
        let_run(SimConfig(**{**config.__dict__, **change}), HandClock(MIDNIGHT_MS + 120_000))
    assert caught.value.reason == "truth"
    assert path.read_bytes() == before


def test_a_clock_that_leaps_is_refused(tmp_path: Path) -> None:
    async def scene() -> None:
        clock = HandClock()
        simulator = Simulator(tcp(*TWO, truth=tmp_path / "truth.csv", step_s=1), clock)
        clock.time_ms += 30 * DAY_MS
        with pytest.raises(SimError):
            simulator.advance()
        await simulator.close()
        with pytest.raises(SimError):
            Simulator(tcp(*TWO, truth=tmp_path / "truth.csv"), HandClock(MIDNIGHT_MS - DAY_MS))
    play(scene())


@pytest.mark.parametrize(("text", "word"), [
    ("time,point\n", "line 1"), (HEADER + "\n1,2,3,sdm120\n", "line 2"),
    (HEADER + "\n1,x,3,sdm120,0000:00\n", "line 2"),
    (HEADER + "\n1,2,3,sdm9,0000:00\n", "sdm9"), (HEADER + "\n1,2,3,sdm120,0000:0000\n", "register"),
    (HEADER + "\n1,2,3,pzem004t,0000:" + 40 * "0" + "\n1,2,3,pzem004t,0000:" + 40 * "1" + "\n", "two different"),
    (HEADER + "\n1,2,3,sdm120,0000:7f800000" + 312 * "0" + " 0156:" + 16 * "0" + "\n", "no number"),
    (HEADER + "\n1,2,3,sdm120,zz\n", "AAAA:words"),
])
def test_a_bad_truth_file_is_named(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "truth.csv").write_text(text)
    with pytest.raises(SimError) as caught:
        read_truth(tmp_path / "truth.csv")
    assert caught.value.reason == "truth" and word in caught.value.detail, caught.value.detail


def test_several_files_make_one_truth(tmp_path: Path) -> None:
    let_run(tcp(TWO[0], truth=tmp_path / "a.csv"), HandClock())
    let_run(tcp(TWO[1], truth=tmp_path / "b.csv"), HandClock())
    assert set(read_truth(tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "a.csv")) == {
        (1, MIDNIGHT_MS), (2, MIDNIGHT_MS)}
