"""What `/metrics` says, read by Prometheus' own strict parser."""

from __future__ import annotations

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from raw_http import exchange, request
from server_process import ServerProcess

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class Samples:
    """All samples of one look at a server."""

    def __init__(self, server: ServerProcess, headers: dict[str, str] | None = None):
        reply = exchange(server.port, request("GET", "/metrics", headers={"Accept": OPENMETRICS, **(headers or {})}))
        assert reply.status == 200, reply
        families = text_string_to_metric_families(reply.body.decode())
        self.all = [sample for family in families for sample in family.samples]

    def total(self, name: str, **labels: str) -> float:
        """The sum of all samples of this name that have these labels."""
        found = [it.value for it in self.all if it.name == name and labels.items() <= it.labels.items()]
        return sum(found)

    def names(self) -> set[str]:
        return {sample.name for sample in self.all}

    def values(self, name: str, label: str) -> set[str]:
        """What a label is seen to be."""
        return {sample.labels[label] for sample in self.all if sample.name == name}

    def series(self) -> set[tuple]:
        return {(sample.name, *sorted(sample.labels.items())) for sample in self.all}
