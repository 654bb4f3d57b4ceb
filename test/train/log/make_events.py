"""Writes events.tfevents and crc32c.json with TensorBoard's own writer, for tfevents.test.ts to compare with.

    pip install tensorboard && python make_events.py
"""
import json
import pathlib

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import crc32c, masked_crc32c
from tensorboard.summary.writer.record_writer import RecordWriter

here = pathlib.Path(__file__).parent

text = Summary.Value(
    tag="configuration",
    metadata=SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text")),
    tensor=TensorProto(
        dtype=DT_STRING,
        tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
        string_val=["größer als 1".encode()],
    ),
)
image = Summary.Image(height=2, width=300, colorspace=1, encoded_image_string=bytes(range(256)))
events = [
    Event(wall_time=1700000000.25, file_version="brain.Event:2"),
    Event(wall_time=1700000001.5, step=7, session_log=SessionLog(status=SessionLog.START)),
    Event(wall_time=1700000002.0, step=3_000_000_000, summary=Summary(value=[
        Summary.Value(tag="train/loss", simple_value=0.1),
        Summary.Value(tag="train/zero", simple_value=0),
    ])),
    Event(wall_time=1700000003.0, step=0, summary=Summary(value=[text, Summary.Value(tag="input", image=image)])),
]
with open(here / "events.tfevents", "wb") as file:
    writer = RecordWriter(file)
    for event in events:
        writer.write(event.SerializeToString())

vectors = [b"", b"a", b"123456789", bytes(32), bytes([255] * 32), bytes(range(256)) * 9]
rows = [{"hex": each.hex(), "crc": crc32c(each), "masked": masked_crc32c(each)} for each in vectors]
(here / "crc32c.json").write_text(json.dumps(rows, indent=2) + "\n")
