from __future__ import annotations

import signal
import subprocess
import sys

from optuna_shape.cli import EXIT_INTERRUPTED


def test_ctrl_c_while_the_command_is_being_loaded_ends_it_quietly() -> None:
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-c", "import optuna_shape_main as m; m.main()"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while (line := process.stderr.readline()).split("|")[-1].strip() != "numpy":
        assert line, "it ended"
    process.send_signal(signal.SIGINT)  # The rest takes far longer: torch comes next.
    said = process.communicate(timeout=120)[1]
    assert process.returncode == EXIT_INTERRUPTED
    assert "Traceback" not in said
