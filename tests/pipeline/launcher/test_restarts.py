"""Back-off, limit and report: pure arithmetic."""

from __future__ import annotations

from pipeline.launcher.restarts import LONGEST_DELAY_S, Restarts, delay_s


def test_delays_double_up_to_a_limit():
    assert [delay_s(number) for number in range(1, 7)] == [0, 0.5, 1, 2, 4, 8]
    assert delay_s(1000) == LONGEST_DELAY_S


def test_as_many_restarts_in_a_row_as_allowed():
    restarts = Restarts(3)
    assert [restarts.on_death("sampling", "died", useful=False) for _ in range(4)] == [0, 0.5, 1, None]


def test_useful_work_in_between_begins_a_new_row():
    restarts = Restarts(1)
    for _ in range(10):
        assert restarts.on_death("sampling", "died", useful=True) == 0
    assert restarts.on_death("sampling", "died", useful=False) is None


def test_stages_are_counted_apart():
    restarts = Restarts(1)
    assert restarts.on_death("sampling", "died", useful=False) == 0
    assert restarts.on_death("inference", "died", useful=False) == 0
    assert (restarts.in_a_row("sampling"), restarts.in_a_row("front")) == (1, 0)
    assert restarts.on_death("sampling", "died", useful=False) is None


def test_no_restart_at_all():
    assert Restarts(0).on_death("sampling", "died", useful=True) is None


def test_the_report_names_every_death_and_is_bounded():
    restarts = Restarts(1000)
    restarts.on_death("sampling", "sampling (pid 1) was killed by SIGKILL", useful=False)
    assert restarts.report().endswith("sampling (pid 1) was killed by SIGKILL")
    for pid in range(2, 100):
        restarts.on_death("sampling", f"sampling (pid {pid}) died", useful=True)
    lines = restarts.report().splitlines()
    assert len(lines) == 51
    assert "49 earlier deaths" in lines[0]
    assert lines[-1].endswith("sampling (pid 99) died")
