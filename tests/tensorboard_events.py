"""Reads the scalars of TensorBoard's event files."""

from pathlib import Path

from tensorboardX.proto.event_pb2 import Event


def read_scalars(file: Path) -> dict[str, dict[int, float]]:
    """tag -> step -> value."""
    # A record: length (8 bytes), its checksum (4), the event, its checksum (4).
    data, found = file.read_bytes(), {}
    while data:
        length = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + length])
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                found.setdefault(value.tag, {})[event.step] = value.simple_value
        data = data[16 + length :]
    return found
