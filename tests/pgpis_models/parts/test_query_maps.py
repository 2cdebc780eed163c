"""Which queries are asked for, in words."""

import pytest

from pgpis_models.parts.query_maps import chosen_queries


def test_numbers_and_ranges_are_read():
    assert chosen_queries("0-3, 7", 8) == [0, 1, 2, 3, 7] and chosen_queries(" 5 ", 8) == [5]
    assert chosen_queries("", 3) == chosen_queries(" , ", 3) == [0, 1, 2]


@pytest.mark.parametrize("text, words", [("5-3", "'5-3' is neither a number nor a range"), ("a", "'a' is neither"),
                                         ("-1", "'-1' is neither"), ("²", "'²' is neither"),
                                         ("0-4000000000", "name 4000000000; this checkpoint has 8"), ("8", "name 8; this")])
def test_others_are_refused(text, words):
    with pytest.raises(ValueError, match=words):
        chosen_queries(text, 8)
