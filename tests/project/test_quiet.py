"""`examples/quiet.py`: all that a command says is in a log, what means something on the screen."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil

SCRIPT = Path(__file__).parents[2] / "examples" / "quiet.py"
NOISE = [
    "INFO 12-02 00:56:23 [core.py:1] engine",
    '  File "x.py", line 1',
    "Epoch: 10%|███",
    "  cut off              0.000 [0.000, 0.000]  0.000 [0.000, 0.000]",  # of a table
]


def run(log: Path, code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--log", str(log), "--", sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_the_screen_has_what_means_something_and_the_log_all(tmp_path: Path) -> None:
    own = [
        "annotate: 40 rows, 0 done before, 40 to do",
        "evaluate base: 3/8 rows, 20 tokens, 5 tokens/s, ETA 9 s",
        "  cut off           9   (ran out of --annotate.max_new_tokens)",
        "hint: over 50 % of the tokens are critical",
        "train_sft: --data.dataset: no file 'x'",
    ]
    stamped = [f"2026-12-02 05:38:19 INFO {line}" if line.startswith("annotate") else line for line in own]
    said = [line for pair in zip(stamped, [*NOISE, "noise"], strict=True) for line in pair]
    done = run(tmp_path / "log", f"import sys\nfor line in {said!r}:\n    print(line, flush=True)")
    assert done.returncode == 0 and done.stdout.splitlines() == own and not done.stderr
    assert (tmp_path / "log").read_text().splitlines() == said
    run(tmp_path / "log", "print('annotate: again')")
    assert (tmp_path / "log").read_text().splitlines() == [*said, "annotate: again"], "another command adds to it"


def test_what_says_nothing_new_is_in_the_log_alone(tmp_path: Path) -> None:
    said = [
        "annotate: engine {'enable_prefix_caching': True}",
        "annotate: the first prompt, 3 tokens: x",
        "engines are starting",
        "engines are starting",
        "annotate: 0/160 rows, 0 annotated, 0 positions, none critical yet, 0.0 rollouts/s, 0 tokens/s, ETA ?",
        "annotate: 83/160 rows, 17 annotated, 132 tokens/s, ETA 37 s",
        "evaluate base on test: the first prompt, 61 tokens: x",
        "evaluate base on test: a response ends with <|im_end|>",
        "engines are starting",
        "critical share      37.3%   (140 tokens)",
        "view: 52 responses, 0.1 MB, in runs/quickstart/view.html",
    ]
    done = run(tmp_path / "log", f"print(*{said!r}, sep='\\n')")
    assert done.stdout.splitlines() == [said[1], said[2], said[5]]
    assert (tmp_path / "log").read_text().splitlines() == said


def test_of_the_steps_of_a_training_the_last_is_shown(tmp_path: Path) -> None:
    steps = [f"step {number}/9  loss 0.5  3.1 steps/s  eta 0:00:02" for number in range(1, 10)]
    done = run(tmp_path / "log", f"print(*{steps!r}, 'saved', sep='\\n')")
    assert done.stdout.splitlines() == steps[-1:]
    done = run(tmp_path / "log", f"print(*{steps!r}, 'evaluate cft: done', sep='\\n')")
    assert done.stdout.splitlines() == [steps[-1], "evaluate cft: done"]


def test_of_a_stock_training_the_end_of_its_bar_is_shown(tmp_path: Path) -> None:
    bars = [
        f"Train step of epoch 0:  {n}%|█| {n}/9 [00:04<00:00, 2.2s/it, gpt_loss=0.36, lr=0]\x1b[A" for n in range(9)
    ]
    done = run(
        tmp_path / "log", f"print('Train step of epoch 0:   0%| | 0/9', end='\\r')\nprint(*{bars!r}, sep='\\r')"
    )
    assert done.stdout.splitlines() == [bars[-1].removesuffix("\x1b[A")]
    both = f"print(*{bars!r}, 'step 9/9  loss 0.5', *{bars!r}, sep='\\r')"
    assert run(tmp_path / "log", both).stdout.splitlines() == ["step 9/9  loss 0.5"]


def test_a_step_of_grpo_is_short(tmp_path: Path) -> None:
    figures = {"policy_loss": 0.07, "entropy_loss": 1.9353, "kl": -2e-09, "rollout/reward_mean": 0.0833}
    figures |= {"rollout/response_length_mean": 36.83, "rollout/truncated_rate": 0.5417, "timing/step_total": 55.7}
    said = [
        "(PPOTrainer pid=1) Sample: ['x']",
        f"(PPOTrainer pid=1) INFO ppo_trainer.py:551] ✨ Global step 1: {figures}",
    ]
    done = run(tmp_path / "log", f"import sys; sys.stdout.reconfigure(encoding='utf-8')\nprint(*{said!r}, sep='\\n')")
    assert done.stdout == "step 1: reward 0.083, entropy 1.94, 37 tokens a response, 54% cut off, 56 s\n"


def test_of_a_failure_the_end_is_shown(tmp_path: Path) -> None:
    code = (
        "import sys\nfor i in range(99):\n    print('line', i)\nprint('ValueError: no', file=sys.stderr)\nsys.exit(3)"
    )
    done = run(tmp_path / "log", code)
    assert done.returncode == 3 and "line 98" in done.stderr and "ValueError: no" in done.stderr
    assert "line 10\n" not in done.stderr and done.stderr.splitlines()[-1].endswith(f"is in {tmp_path / 'log'}")
    assert "line 10\n" in (tmp_path / "log").read_text()


def test_a_terminal_obeys_nothing_of_it(tmp_path: Path) -> None:
    """Neither of what is shown as it comes nor of the end of a failure."""
    marks = ["\x1b]52;c;aGk=\x07", "\x1b[?1049h", "\x9b2J", "\x1b(0", "\x1bc", "\u202e"]
    code = f"import sys; sys.stdout.reconfigure(encoding='utf-8')\nprint(*{marks!r}, sep='\\n')\n"
    code += f"print(*('annotate: ' + mark for mark in {marks!r}), sep='\\n')\nsys.exit(1)"
    done = run(tmp_path / "log", code)
    assert done.stdout.count("annotate: ") == len(marks)
    assert not [c for c in done.stdout + done.stderr if c != "\n" and (c < " " or c in "\x7f\x9b\u202e")]


def test_two_processes_may_share_a_line(tmp_path: Path) -> None:
    said = "Global step 3: {'rollout/reward_mean': 0.5} Global step 4: {'rollout/reward_mean': 0.25}"
    assert run(tmp_path / "log", f"print({said!r})").stdout == "step 3: reward 0.500\n"


def test_a_signal_ends_the_command_too(tmp_path: Path) -> None:
    code = "import os, time; print('annotate:', os.getpid(), flush=True); time.sleep(600)"
    command = [sys.executable, str(SCRIPT), "--log", str(tmp_path / "log"), "--", sys.executable, "-c", code]
    quiet = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert quiet.stdout is not None
    working = psutil.Process(int(quiet.stdout.readline().split()[1]))
    quiet.send_signal(signal.SIGTERM)
    assert quiet.wait(timeout=300) == 128 + signal.SIGTERM, "as a shell has it"
    assert not psutil.wait_procs([working], timeout=300)[1]


def test_a_process_in_the_background_is_not_waited_for(tmp_path: Path) -> None:
    code = "import subprocess; print('annotate:', subprocess.Popen(['sleep', '900']).pid)"
    done = run(tmp_path / "log", code)  # it would be killed after 300 s
    psutil.Process(int(done.stdout.split()[1])).kill()
    assert done.returncode == 0
