"""How a server misbehaves on purpose: which request, in which way, how often.

A plan is a list of rules; the first rule that is due for a request decides.
Byte positions count from the start of the body of the answer.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping

from msgspec import Struct, field


class Gate:
    """A place where an answer stops until somebody lets it go on."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._open = threading.Event()

    def wait_reached(self, timeout: float = 10.0) -> None:
        """Return once a request stands at the gate; raises ``TimeoutError``."""
        if not self._reached.wait(timeout):
            raise TimeoutError("no request reached the gate")

    def release(self) -> None:
        """Let everybody through, now and later."""
        self._open.set()

    def stop_here(self) -> None:
        """Report the arrival and wait for the release; called by the server."""
        self._reached.set()
        self._open.wait()


class Fault(Struct, frozen=True):
    """One way to answer wrongly. Everything left out stays as it should be.

    With ``status`` the request is not carried out unless ``apply`` is set: then it
    takes effect, but its answer is lost. ``None`` as the value of a header removes it.
    """

    status: int | None = None
    headers: Mapping[str, str | None] = field(default_factory=dict)
    body: bytes | None = None
    apply: bool = False
    redirect: str | None = None
    """Location of a 307 answer."""
    hang: Gate | None = None
    """Stop before the first byte of the head."""
    hold_at: int | None = None
    """Stop before this byte of the body, at ``gate``."""
    gate: Gate | None = None
    truncate_at: int | None = None
    """Close the connection before this byte, whatever was promised."""
    reset_at: int | None = None
    """Reset the connection (RST) before this byte."""
    flip_at: int | None = None
    """Invert the lowest bit of this byte."""
    extra: bytes = b""
    """Appended to the body, and counted in Content-Length."""
    content_length: int | None = None
    """Promise this length, send the whole body all the same, and close."""
    ignore_range: bool = False
    drip: tuple[int, float] | None = None
    """Send pieces of so many bytes, so many seconds apart."""
    latency: float = 0.0
    """Seconds before the head."""
    http10: bool = False
    """Answer as HTTP/1.0: no length, the end of the connection ends the body."""
    chunked: bool = False
    """Send the body in chunks, without Content-Length."""
    endless: bool = False
    """Send the body in chunks and close without the last, empty chunk."""

    def __post_init__(self) -> None:
        if (self.hold_at is None) != (self.gate is None):
            raise ValueError("hold_at needs a gate, and a gate a place")


class Rule:
    """One line of a plan; ``hits`` counts the requests it has decided."""

    def __init__(
        self, fault: Fault, method: str | None, path: str, skip: int, times: int | None
    ) -> None:
        self.fault = fault
        self.hits = 0
        self._method = method
        self._path = re.compile(path)
        self._skip = skip
        self._times = times

    def due(self, method: str, target: str) -> bool:
        """Whether this request is one the rule is for; counts it."""
        if self._method not in (None, method) or not self._path.search(target):
            return False
        if self._skip > 0:
            self._skip -= 1
            return False
        if self._times is not None and self.hits >= self._times:
            return False
        self.hits += 1
        return True


class FaultPlan:
    """The faults of one server; may be changed while it serves."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._limit: _Bucket | None = None

    def add(
        self,
        fault: Fault,
        *,
        method: str | None = None,
        path: str = "",
        skip: int = 0,
        times: int | None = 1,
    ) -> Rule:
        """Misbehave for ``times`` matching requests (None: all), after letting ``skip`` pass.

        ``path`` is a regular expression searched in path and query.
        """
        rule = Rule(fault, method, path, skip, times)
        with self._lock:
            self._rules.append(rule)
        return rule

    def limit_rate(self, burst: int, per_second: float, retry_after: str | None = None) -> None:
        """Answer 429 to whatever exceeds a token bucket of this size and refill."""
        with self._lock:
            self._limit = _Bucket(burst, per_second, retry_after)

    def clear(self) -> None:
        """Behave from now on; whoever is being held goes on."""
        with self._lock:
            rules, self._rules, self._limit = self._rules, [], None
        for rule in rules:
            for gate in (rule.fault.hang, rule.fault.gate):
                if gate is not None:
                    gate.release()

    def choose(self, method: str, target: str) -> Fault | None:
        """The fault for a request that has just arrived; called once for each."""
        with self._lock:
            for rule in self._rules:
                if rule.due(method, target):
                    return rule.fault
            if self._limit is not None and not self._limit.take():
                return self._limit.refusal
        return None


class _Bucket:
    def __init__(self, burst: int, per_second: float, retry_after: str | None) -> None:
        self._size = float(burst)
        self._tokens = float(burst)
        self._per_second = per_second
        self._last = time.monotonic()
        self.refusal = Fault(
            status=429, headers={"Retry-After": retry_after} if retry_after is not None else {}
        )

    def take(self) -> bool:
        now = time.monotonic()
        self._tokens = min(self._size, self._tokens + (now - self._last) * self._per_second)
        self._last = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
