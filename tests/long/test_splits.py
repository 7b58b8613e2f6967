"""Every case of every output format, cut into three pieces in every way (tests/parse has two pieces, and 200
random ways)."""

import itertools

import pytest

from tenon.parse import formats
from tests.parse.test_formats import ALL, streamed

LONGEST = 2000  # characters of a case


@pytest.mark.parametrize(("name", "case"), ALL)
def test_every_way_to_cut_into_three(name, case):
    table, text = formats.load(name), case.text
    assert len(text) <= LONGEST
    whole = streamed(table, case, [text])
    for one, two in itertools.combinations(range(1, len(text)), 2):
        assert streamed(table, case, [text[:one], text[one:two], text[two:]]) == whole, (one, two)
