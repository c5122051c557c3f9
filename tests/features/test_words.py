from endcap.features.words import words_of


def test_words_of_every_script():
    assert words_of("L'Oréal 2-in-1, Crème") == ["l", "oréal", "2", "in", "1", "crème"]
    assert words_of("红色 洗发水") == ["红色", "洗发", "发水"]
    assert words_of("Nike跑步鞋2025") == ["nike", "跑步", "步鞋", "2025"]
    assert words_of("鞋 L码") == ["鞋", "l", "码"]
    assert words_of("红色、蓝色") == words_of("红色\u3000蓝色") == ["红色", "蓝色"]
    assert words_of("シャンプー・水") == ["シャ", "ャン", "ンプ", "プー", "水"]
    assert words_of("") == []


def test_marks_belong_to_their_letter():
    assert words_of("हिन्दी चाय") == ["हिन्दी", "चाय"]
    assert words_of("தமிழ் ශ්\u200dරී") == ["தமிழ்", "ශ්රී"]
    assert words_of("1\ufe0f\u20e3 ❤\ufe0f") == ["1"]


def test_scripts_without_spaces_are_read_in_pairs_of_letters():
    assert words_of("ไทยชา 50") == ["ไท", "ทย", "ยช", "ชา", "50"]
    assert words_of("น้ำ") == ["น้ำ"]
    assert words_of("ລາວ") == ["ລາ", "າວ"]
    assert words_of("ភាសា") == ["ភាសា"]
    assert words_of("ဗမာစာ") == ["ဗမာ", "မာစာ"]


def test_a_letter_is_the_same_however_it_is_stored():
    assert words_of("cafe\u0301") == words_of("caf\u00e9") == ["café"]
    assert words_of("ＡＢＣ１２") == ["abc12"]
    assert words_of("ｼｬﾝﾌﾟｰ") == words_of("シャンプー")


def test_signs_of_latin_titles_stay_as_they_are():
    assert words_of("Nike™ 10½ m² ﬁt") == ["nike", "10½", "m²", "ﬁt"]
