"""With which codecs an instance is settled: by the configuration, its rules, and what was measured."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from node.config.settings import TranscodeConfig
from node.errors import AnodeError
from node.index import matching_rules
from node.index.index import StoredInstance
from node.services import Services
from node.settling.order import Order, Settled
from node.settling.pool import Settlers
from node.transcode import choosing, pixels

_MOST_SERIES = 10_000


class Choices:
    """Makes the orders of instances, and remembers what was measured for their series.

    ``best`` is measured on the first instance of a series; the others wait for it, so that a series is
    stored in one way. After a restart of the node it is measured anew.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._measuring: dict[str, threading.Lock] = {}
        self._of_series: OrderedDict[str, tuple[str, ...]] = OrderedDict()

    def order(self, services: Services, stored: StoredInstance, header: Mapping[str, str]) -> Order:
        """Order of one instance; ``header`` is looked at where there are rules."""
        transcode = services.config.transcode
        choice = chosen(transcode, header)
        is_best = choice == choosing.BEST
        # What came compressed has nothing to be measured.
        is_native = stored.received_transfer_syntax_uid in pixels.NATIVE_TRANSFER_SYNTAXES
        return Order(
            location=str(stored.location),
            sop_class_uid=stored.sop_class_uid,
            sop_instance_uid=stored.sop_instance_uid,
            series_instance_uid=stored.series_instance_uid,
            transfer_syntax_uid=stored.received_transfer_syntax_uid,
            data_set_sha256=stored.data_set_sha256,
            provenance=stored.provenance.to_json(),
            choices=transcode.codecs if is_best else choosing.named(choice),
            measure=is_best and is_native,
            deflate_bytes=transcode.deflate_bytes,
            at=services.clock.timestamp(),
            frame_bytes=services.config.limits.frame_bytes,
        )

    def settled(
        self, settlers: Settlers, orders: Sequence[Order], niceness: int
    ) -> Iterator[tuple[Order, Settled | AnodeError]]:
        """Settle instances, as ``Settlers.settle`` does; of a series that has to be measured, one first."""
        left = {order.sop_instance_uid: order for order in orders}
        while left:
            unknown = next((order for order in left.values() if self._is_to_measure(order)), None)
            if unknown is None:
                yield from settlers.settle(list(map(self._known, left.values())), niceness=niceness)
                return
            with self._lock:
                measuring = self._measuring.setdefault(unknown.series_instance_uid, threading.Lock())
            with measuring:
                if not self._is_to_measure(unknown):
                    continue  # another thread has done it meanwhile
                del left[unknown.sop_instance_uid]
                for order, answer in settlers.settle([unknown], niceness=niceness):
                    self._learn(order, answer)
                    yield order, answer

    def _is_to_measure(self, order: Order) -> bool:
        with self._lock:
            return order.measure and order.series_instance_uid not in self._of_series

    def _known(self, order: Order) -> Order:
        if not order.measure:
            return order
        with self._lock:
            choices = self._of_series.get(order.series_instance_uid)
        # one that was forgotten meanwhile is measured by itself
        return order if choices is None else replace(order, choices=choices, measure=False)

    def _learn(self, order: Order, answer: Settled | AnodeError) -> None:
        if not isinstance(answer, Settled):
            return
        with self._lock:
            # Where nothing could be measured, the codecs are tried in the order of the configuration.
            self._of_series[order.series_instance_uid] = answer.choices or order.choices
            self._measuring.pop(order.series_instance_uid, None)
            while len(self._of_series) > _MOST_SERIES:
                self._of_series.popitem(last=False)


def chosen(transcode: TranscodeConfig, header: Mapping[str, str]) -> str:
    """What ``[transcode]`` says of an instance: the first rule that matches, else ``to``."""
    for rule in transcode.rules:
        if matching_rules.differs(rule.when, header) is None:
            return rule.to
    return transcode.to
