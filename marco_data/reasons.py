"""Why a record is quarantined: one name and one line each, for the checks, `marco data inspect` and docs/data.md."""

from __future__ import annotations

from marco_data.tfrecord import BAD_COMPRESSION, BAD_LENGTH, TRUNCATED_SHARD

BAD_CHECKSUM = "bad_checksum"
NOT_AN_EXAMPLE = "not_an_example"
MISSING_FEATURE = "missing_feature"
MALFORMED_FEATURE = "malformed_feature"
UNKNOWN_LABEL = "unknown_label"
LABEL_TEXT_MISMATCH = "label_text_mismatch"
UNMAPPED_LABEL = "unmapped_label"
UNKNOWN_SOURCE = "unknown_source"
UNSUPPORTED_FORMAT = "unsupported_format"
BAD_IMAGE_HEADER = "bad_image_header"
FORMAT_MISMATCH = "format_mismatch"
TOO_MANY_PIXELS = "too_many_pixels"
SIZE_MISMATCH = "size_mismatch"
UNDECODABLE_IMAGE = "undecodable_image"
TRAIN_AND_EVAL = "train_and_eval"
DUPLICATE_ID = "duplicate_id"
DUPLICATE_CONTENT = "duplicate_content"

REASONS: dict[str, str] = {
    BAD_CHECKSUM: "the record's data does not fit its checksum: it was damaged in storage or transfer",
    BAD_LENGTH: "a record's length does not fit its checksum: the rest of the shard cannot be read",
    TRUNCATED_SHARD: "the shard ends inside a record: it was not copied or written whole",
    BAD_COMPRESSION: "the shard's zlib or gzip stream is damaged or ends early: its rest cannot be read",
    NOT_AN_EXAMPLE: "the record is not a tf.train.Example",
    MISSING_FEATURE: "a feature of the record contract is absent or empty",
    MALFORMED_FEATURE: "a feature has another type than the contract's, or more than one value",
    UNKNOWN_LABEL: "image/class/label is none of the four classes",
    LABEL_TEXT_MISMATCH: "image/class/text does not name the class of image/class/label",
    UNMAPPED_LABEL: "the configuration's table of labels has no entry for image/class/raw, or for the record's class",
    UNKNOWN_SOURCE: "image/class/source is not listed in sources.csv",
    UNSUPPORTED_FORMAT: "image/format, colorspace or channels is not that of a JPEG or PNG in RGB",
    BAD_IMAGE_HEADER: "the image's first bytes are not those of a JPEG or PNG",
    FORMAT_MISMATCH: "image/format does not name the format of the encoded image",
    TOO_MANY_PIXELS: "the image's header asks for more pixels than the limit: it was not decoded",
    SIZE_MISMATCH: "image/height and image/width are not the size in the image's header",
    UNDECODABLE_IMAGE: "the image cannot be decoded, for instance because it is truncated",
    TRAIN_AND_EVAL: "the same image is in the evaluation set: the copy in the training set is taken out",
    DUPLICATE_ID: "another record has the same image/id: the first in shard order is kept",
    DUPLICATE_CONTENT: "another record has the same encoded image: the first in shard order is kept",
}
