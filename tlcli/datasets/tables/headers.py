"""Common headers of tables, by what their columns hold.

Headers are compared in lowercase, without surrounding spaces, and with `_` for spaces and hyphens.
"""

from __future__ import annotations

import re
import unicodedata

IMAGE_HEADERS = (
    ("path",),
    tuple(
        "image image_path imagepath image_file image_filename image_file_name img img_path imgpath file filename "
        "file_name filepath file_path picture photo".split()
    ),
    ("image_name", "imagename", "img_name"),
    ("id", "image_id", "imageid", "img_id"),
)
"""Headers of paths; the first tuple of which the table has one decides."""
LABEL_HEADERS = (
    ("label",),
    tuple("class class_name classname category category_name target labels label_name class_label".split()),
    ("class_id", "category_id", "label_id"),
)
"""Headers of classes; the first tuple of which the table has one decides."""
SPLIT_HEADERS = frozenset(
    "split splits split_name split_set data_split dataset_split train_test_split train_val_test train_test subset "
    "sub_set data_set partition set phase usage is_valid isvalid is_val isval is_validation is_test istest is_train "
    "istrain is_training is_training_image".split()
)
GROUP_HEADERS = frozenset(
    "group groups group_id groupid group_name group_key patient patient_id patientid subject subject_id "
    "subjectid".split()
)
UNCLEAR = re.compile(r"k?_?(cv_?)?folds?(_?(id|number|no|index))?|(.+_)?split(_?.+)?|.+_groups?(_?id)?|group.*")
"""Headers of columns that may hold splits or groups."""
FLAG_HEADERS = frozenset("valid validation val test train".split())
"""Headers of columns that may hold splits if their values are true and false."""


def header_key(name: str) -> str:
    """Return a header as it is compared: `File Name` and `fileName` as `file_name`."""
    text = unicodedata.normalize("NFC", name).strip().strip("\u200b\ufeff\"'").strip()
    return re.sub(r"[\s\-]+|(?<=[a-z])(?=[A-Z])", "_", text).casefold()


def is_image_header(name: str) -> bool:
    """Return whether a header is common for paths of images."""
    return any(header_key(name) in headers for headers in IMAGE_HEADERS)


def is_label_header(name: str) -> bool:
    """Return whether a header is common for classes."""
    return any(header_key(name) in headers for headers in LABEL_HEADERS)
