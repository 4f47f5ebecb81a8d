"""What a person sees of a training."""

import io

from skyweave.training.progress import Progress

ROW = {"loss": 0.5, "val_loss": 0.6, "learning_rate": 0.001, "seconds": 12.0}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_lines_in_a_log_tell_rate_loss_and_time_left():
    lines, screen = [], io.StringIO()
    progress = Progress(10, 5, 4, lines.append, screen, every_s=0, memory_gb=lambda: 1.25)
    progress.step(1, 0.25)
    assert lines[0].startswith("epoch 1  step 6/10  loss 0.25  ")
    assert "patches/s, 1.2 GB  at most " in lines[0]
    progress.epoch(1, 2, ROW, "  (best)")
    assert lines[1].startswith("epoch 1/2  loss 0.5  val_loss 0.6  learning_rate 0.001  12.0 s")
    assert screen.getvalue() == ""


def test_a_bar_is_drawn_on_a_terminal():
    lines, screen = [], Terminal()
    progress = Progress(10, 0, 4, lines.append, screen, memory_gb=lambda: 1.25)
    for step in range(3):
        progress.step(1, 1 / (step + 1))
    progress.close()
    assert "/10 [" in screen.getvalue()
    assert not lines


def test_rate_and_time_left():
    progress = Progress(30, 10, 4, print, io.StringIO(), memory_gb=lambda: 1.25)
    assert progress.left(progress._start + 9) == "an unknown time"
    progress.done = 20
    now = progress._start + 80
    assert progress.rate(now) == 0.5
    assert progress.left(now) == "1 min 20 s"
