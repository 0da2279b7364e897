"""Data sets as tensorflow-datasets prepares them."""

import json
from pathlib import Path

import cv2
import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.proto import tf_example_pb2


def write_prepared(folder, name, features, splits, *, version="1.0.0", file_format="array_record"):
    """Writes a data set as tensorflow-datasets prepares one.

    Args:
      folder: the data_dir.
      name: of the data set.
      features: of tfds.features, by key.
      splits: examples by split, each a dict of PNG-encodable uint8 arrays, ints and bytes.
      version: of the data set.
      file_format: what the data set says it is stored as.
    """
    place = Path(folder, name, version)
    place.mkdir(parents=True)
    tfds.features.FeaturesDict(features).save_config(place)
    described = []
    for split, examples in splits.items():
        writer = ArrayRecordWriter(str(place / f"{name}-{split}.array_record-00000-of-00001"), "group_size:1")
        for example in examples:
            record = tf_example_pb2.Example()
            for key, value in example.items():
                feature = record.features.feature[key]
                if isinstance(value, int):
                    feature.int64_list.value.append(value)
                else:
                    encoded = value if isinstance(value, bytes) else cv2.imencode(".png", value[..., ::-1])[1].tobytes()
                    feature.bytes_list.value.append(encoded)
            writer.write(record.SerializeToString())
        writer.close()
        described.append(
            {
                "name": split,
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "numBytes": "1",
                "shardLengths": [str(len(examples))],
            }
        )
    info = {"name": name, "version": version, "moduleName": name, "fileFormat": file_format, "splits": described}
    (place / "dataset_info.json").write_text(json.dumps(info))


def labelled_images(count, *, shape=(32, 32, 3), classes=4, seed=0):
    """Noise in four brightnesses, one a class."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = random.integers(0, 64, (count, *shape), np.uint8) + (labels * 60).astype(np.uint8)[:, None, None, None]
    return [{"image": image, "label": int(label)} for image, label in zip(images, labels, strict=True)]
