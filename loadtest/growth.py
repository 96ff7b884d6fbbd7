"""Decides from a few readings whether something grows with every call: a line, how sure it is, and a limit."""

import dataclasses
import math

# Readings of one run, and how many of them are left out at the start: pools, caches and free lists fill.
READINGS = 18
WARMUP = 6
# Two-sided 95 % of Student's t with READINGS - WARMUP - 2 degrees of freedom.
STUDENT = 2.228
# What a process may keep of a call. Half of the smallest thing that malloc gives (32 bytes), so that one forgotten in
# every call does not pass; and ten calls a second for thirty days make 415 MB of it, which the
# smallest pod of k8s/ (512 MiB, of which 22 are used) has room for.
MOST_BYTES_PER_CALL = 16.0
# The same of resident memory, which decides where there is no account of the heap: pages come and go whole.
MOST_RESIDENT_PER_CALL = 64.0
MOST_DESCRIPTORS_PER_CALL = 0.001


@dataclasses.dataclass(frozen=True)
class Line:
    """How much more there is after each call, and by how much that may be off either way with 95 % confidence."""

    per_call: float
    bound: float
    mean: float
    first_call: float
    at_first: float  # what the line says there

    def surely_within(self, limit: float) -> bool:
        return self.per_call + self.bound <= limit

    def surely_above(self, limit: float) -> bool:
        return self.per_call - self.bound > limit


def fit(points: list[tuple[float, float]]) -> Line:
    """Least squares through READINGS points (calls so far, amount), without the first WARMUP. REQUIRES: calls grow."""
    assert len(points) == READINGS, f"{len(points)} readings, STUDENT is for {READINGS}"
    kept = points[WARMUP:]
    n = len(kept)
    middle_x, middle_y = sum(x for x, _ in kept) / n, sum(y for _, y in kept) / n
    spread = sum((x - middle_x) ** 2 for x, _ in kept)
    slope = sum((x - middle_x) * (y - middle_y) for x, y in kept) / spread
    rest = sum((y - middle_y - slope * (x - middle_x)) ** 2 for x, y in kept)
    return Line(slope, STUDENT * math.sqrt(rest / (n - 2) / spread), middle_y, kept[0][0], middle_y + slope * (kept[0][0] - middle_x))


def fault(who: str, line: Line, limit: float = MOST_BYTES_PER_CALL) -> str | None:
    """Why `who` has not been shown to keep at most `limit` bytes of a call, if it has not."""
    if line.surely_within(limit):
        return None
    how = f"{line.per_call:+.1f} ± {line.bound:.1f} bytes a call, {limit:.0f} are allowed"
    return f"{who} grows: {how}" if line.surely_above(limit) else f"{who} is not shown to be flat: {how}; a longer run, or more calls a second, may decide"


def descriptors_fault(who: str, line: Line) -> str | None:
    """Why the descriptors of `who` surely grow with its calls, if they do. One or two that are opened for good are a step, and no growth."""
    if not line.surely_above(MOST_DESCRIPTORS_PER_CALL) or 2 * (line.mean - line.at_first) <= 2:
        return None
    return (f"descriptors of {who} grow: {1000 * line.per_call:+.1f} ± {1000 * line.bound:.1f} in 1,000 calls, "
            f"{1000 * MOST_DESCRIPTORS_PER_CALL:.0f} are allowed")
