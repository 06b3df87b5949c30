"""Asks the HTTP API what nobody thought of, with schemathesis, and says what came of it.

    python -m tests.fuzz_api --examples 30

The API is the real one over a real socket, around a worker that draws at once. Each answer must be
of a status, a kind and a shape that `/api/openapi.json` tells of, and none may be a 5xx.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.web_kit import open_page

LEAST = 2000
"""Cases of the long form."""

_PATIENCE = 120
"""Seconds after which an answer counts as none."""

_HOOKS = "tests.fuzz_hooks"
_ROOT = Path(__file__).parent.parent

LEFT_OUT = "^/api/([a-z-]+/)?events$|^/api/drain$"
"""Streams that end with the connection; and what has all who draw wait from then on."""

_CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
)
"""All but those that don't hold here: a wrong kind of body is refused before its address is looked
up (415 rather than 405), modes may have the names of addresses (``/api/modes/switch``), and a job
outlives the pictures that its ``DELETE`` deletes: its family still names it."""


@dataclass(frozen=True, slots=True)
class Found:
    """What came of it.

    Attributes:
        cases: requests that were made.
        failures: kinds of answers that nobody had told of.
        said: what schemathesis said; empty where it was shown.
    """

    cases: int
    failures: int
    said: str


async def fuzz(examples: int, *more: str, left_out: str = LEFT_OUT, quiet: bool = False) -> Found:
    """Runs schemathesis against the page.

    Args:
        examples: most generated cases of each address; those that cover its schema come on top.
        more: options of schemathesis.
        left_out: a regular expression of addresses that are not asked.
        quiet: whether its words are returned rather than shown.

    Raises:
        RuntimeError: it did not come to its end; its words say why.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report = folder / "report.json"
        async with open_page(folder) as page:
            program = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "schemathesis.cli", "run"),
                f"{page.url}/api/openapi.json",
                *("--checks", ",".join(_CHECKS), "--max-examples", str(examples)),
                *("--exclude-path-regex", left_out),
                # How long is for benchmarks to say.
                *("--request-timeout", str(_PATIENCE), "--suppress-health-check", "all"),
                *("--continue-on-failure", "--report-json-path", str(report), *more),
                cwd=folder,
                env={**os.environ, "SCHEMATHESIS_HOOKS": _HOOKS, "PYTHONPATH": str(_ROOT)},
                stdout=asyncio.subprocess.PIPE if quiet else None,
                stderr=asyncio.subprocess.STDOUT if quiet else None,
            )
            output, _ = await program.communicate()
        said = (output or b"").decode()
        if not report.exists():
            raise RuntimeError(said or "schemathesis did not come to its end")
        told = json.loads(report.read_text(encoding="utf-8"))["test_cases"]
        return Found(told["generated"], told["unique_failures"] + told["errored"], said)


def main() -> int:
    """Reads the command line, asks, and returns whether anything is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--examples", type=int, default=30, help="of each address")
    parser.add_argument("--seed", type=int, help="asks once more what that seed asked")
    options = parser.parse_args()
    more = () if options.seed is None else ("--seed", str(options.seed))
    found = asyncio.run(fuzz(options.examples, *more))
    sys.stdout.write(f"{found.cases} cases, {found.failures} failures\n")
    return int(found.failures > 0 or found.cases < LEAST)


if __name__ == "__main__":
    sys.exit(main())
