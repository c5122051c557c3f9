"""Which of the files that a catalogue names are read."""

from pathlib import Path

import polars as pl

from endcap.app.media import files_of
from endcap.core.tables import ITEMS, conform
from endcap.features.items import ItemTable


def test_what_is_not_read_takes_no_place_of_what_is(tmp_path: Path) -> None:
    names = {
        "a": ["https://shop.example/1.jpg", "../2.jpg", "3.jpg", "4.jpg", "5.jpg", "https://shop.example/6.jpg"],
        "b": ["7.jpg"],
        "c": None,
    }
    frame = pl.DataFrame({"item_id": list(names), "images": list(names.values())})
    files = files_of(ItemTable.build(conform(frame, ITEMS)), "images", tmp_path, 2)
    assert files.names == ["3.jpg", "4.jpg", "7.jpg"]
    assert files.items.tolist() == [0, 0, 1]
    assert [lost.file for lost in files.lost] == names["a"][:2]
