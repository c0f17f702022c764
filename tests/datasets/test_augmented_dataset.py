"""The plan of an augmented dataset."""

import unicodedata

from tlcli.datasets.augmented_dataset import plan_augmented_dataset
from tlcli.datasets.dataset import open_dataset


def test_files_with_one_name_in_two_unicode_forms_of_a_folder(tmp_path, draw, report):
    forms = [unicodedata.normalize(form, "é") for form in ("NFC", "NFD")]
    for seed, folder in enumerate([*forms, "b"]):
        draw(tmp_path / "train" / folder / "1.png", seed)
    draw(tmp_path / "val" / "b" / "1.png", 9)
    dataset = open_dataset(tmp_path)
    images, failures = plan_augmented_dataset(dataset, copies=1, seed=0, workers=1, report=report)
    assert not failures
    assert len({image.path for image in images}) == len(images) == 2 * 3 + 1
    assert {image.path.split("/")[1] for image in images} == {"b", "é"}
