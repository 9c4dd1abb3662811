"""A Ray of this process alone: which of its failures are a busy machine, and tried again."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from openrlhf_cft.errors import InputError
from openrlhf_cft.jobs import cluster


class Init:
    """Stands in for `ray.init`: fails some times, each after some seconds of a clock of its own."""

    def __init__(self, failures: int, seconds: float, error: Exception) -> None:
        self.failures, self.seconds, self.error = failures, seconds, error
        self.calls, self.now = 0, 0.0

    def __call__(self, **options: Any) -> None:
        self.calls += 1
        if self.calls <= self.failures:
            self.now += self.seconds
            raise self.error


def connect(init: Init, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr(cluster, "time", SimpleNamespace(monotonic=lambda: init.now))
    cluster.connect(None, 1)


def test_a_node_that_only_needs_longer_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    init = Init(3, 30.2, Exception("whatever the words"))
    connect(init, monkeypatch)
    assert init.calls == 4


@pytest.mark.parametrize(
    ("seconds", "error"),
    [(0.1, Exception("a busy machine does not fail at once")), (30.2, ValueError("and raises a plain Exception"))],
)
def test_another_failure_is_not(seconds: float, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    init = Init(99, seconds, error)
    with pytest.raises(type(error), match=str(error)):
        connect(init, monkeypatch)
    assert init.calls == 1


def test_it_is_not_tried_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    init = Init(99, 30.2, Exception("never"))
    with pytest.raises(Exception, match="never"):
        connect(init, monkeypatch)
    assert init.calls == cluster.START_ATTEMPTS


def test_a_users_process_is_as_it_was_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own output and the environment: other code in a notebook or a driver relies on them."""
    import ray._private.worker as worker

    monkeypatch.setenv("DS_ACCELERATOR", "its own")
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    monkeypatch.setattr(cluster, "connect", lambda *_: None)
    before = dict(os.environ), worker.print_to_stdstream
    with pytest.raises(KeyError), cluster.connected(None, 1):
        assert os.environ["TOKENIZERS_PARALLELISM"] == "false" and os.environ["DS_ACCELERATOR"] == "its own"
        assert worker.print_to_stdstream is not before[1]
        raise KeyError
    assert (dict(os.environ), worker.print_to_stdstream) == before


def test_a_ray_of_the_users_own_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[None] = []
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.shutdown", lambda: ended.append(None))
    with pytest.raises(InputError, match="Ray runs in this process already"), cluster.connected(None, 1):
        pass
    assert not ended
