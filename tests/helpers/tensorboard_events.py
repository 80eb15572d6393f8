"""Reads TensorBoard's event files."""

from collections.abc import Iterator
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event


def read_events(file: Path) -> Iterator[Event]:
    """All events of a file."""
    # A record: length (8 bytes), its checksum (4), the event, its checksum (4).
    data = file.read_bytes()
    while data:
        length = int.from_bytes(data[:8], "little")
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def read_scalars(file: Path) -> dict[str, dict[int, float]]:
    """tag -> step -> value."""
    found: dict[str, dict[int, float]] = {}
    for event in read_events(file):
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found
