from endcap.features.words import words_of


def test_words_of_every_script():
    assert words_of("L'Oréal 2-in-1, Crème") == ["l", "oréal", "2", "in", "1", "crème"]
    assert words_of("红色 洗发水") == ["红色", "洗发", "发水"]
    assert words_of("Nike跑步鞋2025") == ["nike", "跑步", "步鞋", "2025"]
    assert words_of("鞋 L码") == ["鞋", "l", "码"]
    assert words_of("红色、蓝色") == words_of("红色\u3000蓝色") == ["红色", "蓝色"]
    assert words_of("シャンプー・水") == ["シャ", "ャン", "ンプ", "プー", "水"]
    assert words_of("") == []
