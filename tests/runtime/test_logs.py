"""What is shown of a log."""

import pytest

from distjudge_trl.runtime.logs import log_tail


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_progress_bar_is_shown_as_it_looked_at_its_end(end, tmp_path):
    log = tmp_path / "log.txt"
    log.write_bytes(f"begins{end}  0%\r 50%\r100%{end}{end}error: why\u2028so{end}".encode())
    assert log_tail(log) == "begins\n100%\nerror: why\u2028so"


def test_a_bar_that_is_still_drawn_takes_one_line(tmp_path):
    log = tmp_path / "log.txt"
    log.write_bytes(b"the cause\n" + b"".join(b"%d/900\r" % step for step in range(900)))
    assert log_tail(log) == "the cause\n899/900"


def test_the_end_of_a_long_log_is_shown(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("".join(f"line {number}\n" for number in range(100_000)))
    assert log_tail(log, lines=3).split("\n") == ["line 99997", "line 99998", "line 99999"]
    assert log_tail(log, lines=9, characters=5) == "99999"


def test_there_may_be_no_log(tmp_path):
    assert log_tail(tmp_path / "log.txt") == ""
