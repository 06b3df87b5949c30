"""The short form of `make fuzz-api`: every address is asked a few things by schemathesis."""

from tests.fuzz_api import fuzz


async def test_every_address_answers_as_it_is_described_and_never_with_a_5xx() -> None:
    found = await fuzz(1, "--phases", "examples,fuzzing", "--no-shrink", quiet=True)
    assert found.failures == 0, found.said
    assert found.cases > 60, found.said
