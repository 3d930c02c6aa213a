"""What a call costs, counted in whole numbers, is what fractions say, rounded up once."""

from fractions import Fraction
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from overwinter.gateway.prices import bound_nusd
from overwinter.gateway.usage import Rates, Usage, cost_nusd

rate = st.fractions(min_value=0, max_value=10**9, max_denominator=10**7)
rates = st.builds(
    Rates, fresh=rate, output=rate, cache_read=rate, cache_write=rate, cache_write_long=rate, audio_input=rate,
    audio_output=rate, search=rate,
)  # fmt: skip
tokens = st.integers(0, 10**8)
usages = st.builds(
    Usage, fresh=tokens, output=tokens, cache_read=tokens, cache_write=tokens, cache_write_long=tokens, audio_input=tokens,
    audio_output=tokens, searches=tokens,
)  # fmt: skip


@given(usages, rates)
def test_a_cost_is_the_sum_of_counts_by_rates_rounded_up(usage: Usage, each: Rates):
    exact = (
        usage.fresh * each.fresh + usage.output * each.output + usage.cache_read * each.cache_read
        + usage.cache_write * each.cache_write + usage.cache_write_long * each.cache_write_long
        + usage.audio_input * each.audio_input + usage.audio_output * each.audio_output + usage.searches * each.search
    )  # fmt: skip
    assert cost_nusd(usage, each) == ceil(Fraction(exact))


@given(rates, tokens, tokens)
def test_a_bound_has_all_input_and_output_at_the_dearest_rate(each: Rates, read: int, written: int):
    dearest = max(each.fresh, each.cache_write, each.cache_write_long, each.audio_input)
    assert bound_nusd(each, read, written) == ceil(read * dearest + written * max(each.output, each.audio_output))
