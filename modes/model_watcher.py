"""Has the modes read again when a file that they name comes, goes or turns up elsewhere.

Models lie in many folders, on drives that send no events, and are copied for minutes: a look once
a second at what is named is enough, and tells of nothing else.
"""

import asyncio
import logging

from modes.catalog import ModeCatalog

_log = logging.getLogger(__name__)

_EVERY = 1.0  # seconds
_SHARE = 20  # times as long as a look has taken: thousands of names on a slow disk are no load


async def watch_models(catalog: ModeCatalog) -> None:
    """Keeps modes and their files together until it is cancelled.

    Modes that can't be read again stay as they are; that is told once for each change.
    """
    told, clock = catalog.whereabouts, asyncio.get_running_loop().time
    pause = _EVERY
    while True:
        await asyncio.sleep(pause)
        known, began = catalog.whereabouts, clock()
        now = await asyncio.to_thread(known.look_again)
        pause = max(_EVERY, _SHARE * (clock() - began))
        if now in (known, told):
            continue
        told = now
        try:
            await catalog.reload()
        except Exception:
            _log.exception("The modes could not be read again for the models that have come.")
