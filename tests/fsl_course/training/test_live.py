import re
import subprocess
import sys

from fsl_course.training import live
from fsl_course.training.live import LiveProgress


class Terminal:
    """Stands for standard error: remembers what is written."""

    def __init__(self, is_terminal: bool) -> None:
        self.lines: list[str] = []
        self.isatty = lambda: is_terminal

    def write(self, text: str) -> None:
        self.lines.append(text)

    def flush(self) -> None: ...


def test_the_bar_of_a_run_of_hours_tells_the_time_gone_and_left_first(monkeypatch):
    terminal = Terminal(True)
    monkeypatch.setattr(sys, "stderr", terminal)
    with LiveProgress(8000, 0, 0.05) as shown:
        shown._bar.dynamic_ncols, shown._bar.ncols = None, 80
        shown._bar.start_t -= 3723  # as if it had begun an hour ago
        shown._bar.last_print_t -= 3723
        shown.update(2000, [0.1234], [0.873], [(100, 0.912, 0.1)])
    line = [text for text in terminal.lines if "2000/8000" in text][-1].strip()
    assert re.match(r"2000/8000 \[1:02:0\d<3:06:\d\d, loss=0.123, val=0.912, accuracy=0.873 \(chance 0.05", line)
    assert len(line) <= 80


def test_a_log_file_is_not_flooded(monkeypatch):
    for is_terminal, seconds in ((True, live._BAR_SECONDS), (False, live._LOG_SECONDS)):
        monkeypatch.setattr(sys, "stderr", Terminal(is_terminal))
        with LiveProgress(10, 0, None) as shown:
            assert shown._bar.mininterval == seconds


def test_a_quiet_run_needs_no_pictures():
    """matplotlib costs half a second at every start."""
    code = (
        "import sys; from fsl_course.training.live import LiveProgress; LiveProgress(1, 0, None, quiet=True); "
        "print('matplotlib' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert found.stdout.strip() == "False", found.stderr
