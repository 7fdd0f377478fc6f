"""Numbers in texts are counted before they are computed."""

import time
from fractions import Fraction

import pytest

from t2v_models.errors import T2VError
from t2v_models.numbers import exact_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("24", Fraction(24)),
        (" 29.97 ", Fraction(2997, 100)),
        ("30000/1001", Fraction(30000, 1001)),
        ("2.5e1", Fraction(25)),
        ("1E-3", Fraction(1, 1000)),
        (".5", Fraction(1, 2)),
        ("-2", Fraction(-2)),
    ],
)
def test_a_number_in_a_text_is_exact(text: str, number: Fraction) -> None:
    assert exact_number(text) == number


@pytest.mark.parametrize("text", ["0.1", "29.97", "1e-7", "123456789.987654321", "3.4028235e38"])
def test_the_fraction_of_a_text_is_the_float_that_python_reads(text: str) -> None:
    assert float(exact_number(text)) == float(text)


@pytest.mark.parametrize(
    "text",
    [
        "1e999999999",
        "1e-999999999",
        "9" * 5_000_000,
        "1/" + "9" * 1_000_000,
        "1e" + "0" * 1_000_000,
        "1 " * 3_000_000,
        "1" * 41,
        "1/0",
        "nan",
        "inf",
        "",
        "1_000",
        "0x10",
        "²",
        "1e41",
        "1//2",
        "\ud800",
    ],
    ids=lambda text: text[:12].encode("unicode_escape").decode(),
)
def test_a_text_that_is_no_number_or_too_long_a_one_is_refused_at_once(text: str) -> None:
    started = time.perf_counter()
    with pytest.raises(T2VError) as refusal:
        exact_number(text)
    assert time.perf_counter() - started < 1
    assert len(str(refusal.value)) < 200
