"""Nothing is lost and nothing comes twice, whatever dies: `tests.chaos` in short.

`make chaos` kills as often as one likes, and `tests.test_fault_points` at every boundary.
"""

from pathlib import Path

import pytest

from tests import chaos


@pytest.mark.slow
@pytest.mark.timeout(900)  # each kill costs a start of the bot; nothing is decided by it
async def test_every_request_is_answered_once_whatever_is_killed_and_goes_wrong(
    tmp_path: Path,
) -> None:
    report = await chaos.run(tmp_path / "chaos", 20, faults=True)
    assert not report.wrong, report
    assert report.kills.total() == 20
    assert report.faults
    assert report.pictures
