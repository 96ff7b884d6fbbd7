"""A stand-in for KEDA and the pod autoscaler behind it: speaks the contract of external scalers, decides as they do, only
faster, and starts and stops lens decoders through whatever it is given."""

import collections
import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator

import grpc
from wire import Wire

SERVICE = "externalscaler.ExternalScaler"


class Scaler:
    """An external scaler's four calls, for one trigger."""

    def __init__(self, address: str, metadata: dict[str, str]) -> None:
        self._wire = Wire("externalscaler/externalscaler.proto")
        self._channel = grpc.insecure_channel(address)
        # The whole trigger is handed over, as KEDA does.
        self.trigger = self._wire.message("externalscaler.ScaledObjectRef", name="lens-decoder", namespace="default",
                                          scalerMetadata={"scalerAddress": address, **metadata})

    def close(self) -> None:
        self._channel.close()

    def _call(self, name: str):
        return self._wire.method(self._channel, SERVICE, name)

    def is_active(self) -> bool:
        return self._call("IsActive")(self.trigger, timeout=10).result

    def stream_is_active(self) -> grpc.Call:
        """Yields messages until it is cancelled."""
        return self._call("StreamIsActive")(self.trigger)

    def targets(self) -> dict[str, float]:
        """The target of each metric."""
        specs = self._call("GetMetricSpec")(self.trigger, timeout=10).metricSpecs
        return {spec.metricName: spec.targetSizeFloat or float(spec.targetSize) for spec in specs}

    def value(self, metric: str) -> float:
        request = self._wire.message("externalscaler.GetMetricsRequest", metricName=metric)
        request.scaledObjectRef.CopyFrom(self.trigger)
        (value,) = self._call("GetMetrics")(request, timeout=10).metricValues
        return value.metricValueFloat or float(value.metricValue)


class Autoscaler:
    """Runs from `start` to `stop`, in threads of its own.

    From zero to one when activity is pushed; ceil(value / target), the most over all metrics, while active, and the most
    of the last `stabilization_s`; to zero when nothing was active for `cooldown_s`.
    """

    def __init__(self, scaler: Scaler, scale: Callable[[int], None], most: int, interval_s: float = 0.2,
                 stabilization_s: float = 1.0, cooldown_s: float = 1.0) -> None:
        self._scaler, self._scale, self._most = scaler, scale, most
        self._interval_s, self._stabilization_s, self._cooldown_s = interval_s, stabilization_s, cooldown_s
        self._targets = scaler.targets()
        self._stream = scaler.stream_is_active()
        self._changed, self._stopping = threading.Event(), threading.Event()
        self._looking = threading.Lock()  # held from a look at the metrics to what follows from it
        self._threads = [threading.Thread(target=self._listen), threading.Thread(target=self._run)]
        self.active = False
        self.pushes: list[tuple[float, bool]] = []  # (when, active), as they came
        self.decisions: list[tuple[float, int]] = [(time.monotonic(), 0)]  # (when, decoders wanted), changes only
        self.failure: Exception | None = None

    def __enter__(self) -> "Autoscaler":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._changed.set()
        self._stream.cancel()
        for thread in self._threads:
            thread.join()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Neither looks nor decides until this is over, and looks again at once then."""
        with self._looking:
            yield
        self._changed.set()

    def _listen(self) -> None:
        try:
            for message in self._stream:
                self.active = message.result
                self.pushes.append((time.monotonic(), message.result))
                self._changed.set()
        except grpc.RpcError as error:
            if not self._stopping.is_set():
                self.failure = error

    def _run(self) -> None:
        try:
            recommended: collections.deque[tuple[float, int]] = collections.deque()
            last_active = -math.inf
            while not self._stopping.is_set():
                with self._looking:
                    now = time.monotonic()
                    if self.active:
                        last_active = now
                    wanted = 0
                    if now - last_active < self._cooldown_s:
                        wanted = max(math.ceil(self._scaler.value(name) / target) for name, target in self._targets.items())
                        wanted = min(max(wanted, 1), self._most)
                    if wanted == 0:
                        recommended.clear()  # the cooldown was its wait
                    recommended.append((now, wanted))
                    while recommended[0][0] < now - self._stabilization_s:
                        recommended.popleft()
                    self._decide(max(n for _, n in recommended))
                self._changed.wait(self._interval_s)
                self._changed.clear()
        except Exception as error:  # noqa: BLE001 - whoever started this is told
            self.failure = error

    def _decide(self, wanted: int) -> None:
        if wanted == self.decisions[-1][1]:
            return
        self.decisions.append((time.monotonic(), wanted))
        self._scale(wanted)
