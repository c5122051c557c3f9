"""The figures of pictures and texts, by hand."""

import numpy as np
import pytest
from benchmarks.bench_multimodal import _folder, _path, precision, recall

from endcap.core.errors import CallerError


def test_recall_counts_ties_against_the_right_text():
    scores = np.zeros((3, 8), np.float32)
    scores[0, :5] = [1, 2, 3, 4, 5]  # the right one, 0, is fifth
    scores[1, :6] = [1, 2, 3, 4, 5, 1]  # another is as good as the right one
    scores[2, 7] = 1
    assert recall(scores, np.array([0, 0, 7])) == pytest.approx(2 / 3)


def test_precision_is_of_the_first_five_photos():
    shows = np.array([0, 0, 0, 1, 1, 1, 1, 1])
    scores = np.array([[8, 7, 6, 5, 4, 3, 2, 1], [1, 2, 3, 8, 7, 6, 5, 4]], np.float32)
    assert precision(scores, shows) == pytest.approx((3 / 5 + 5 / 5) / 2)


def test_a_product_is_named_from_broad_to_narrow():
    product = {
        "Product Description Path (str)": "/iconic/Fruit/Apple/Golden-Delicious/x.txt",
        "Coarse Class Name (str)": "Apple",
        "Class Name (str)": "Golden-Delicious",
    }
    assert _path(product) == "Fruit > Apple > Golden Delicious"


def test_a_folder_without_photos_is_refused(tmp_path):
    with pytest.raises(CallerError, match="There are no photos"):
        _folder(tmp_path)
    with pytest.raises(CallerError, match="No folder"):
        _folder(None)
    (tmp_path / "grocery-images").mkdir()
    (tmp_path / "grocery-images" / "classes.csv").write_text("")
    assert _folder(tmp_path) == _folder(tmp_path / "grocery-images") == tmp_path / "grocery-images"
