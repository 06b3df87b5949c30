"""Who comes in: tokens, and a bound on guessing them."""

import functools
import hashlib
import hmac
import ipaddress
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from bot.records import Owner
from bot.settings import Settings
from bot.web.pace import Pace
from bot.web.roles import Role, Visitor
from engine.errors import DreamLabError

logger = logging.getLogger(__name__)

YOU = Owner("web:local", "you", is_trusted=True)
"""Who runs Dream Lab: whoever sits at this machine, or has the admin's token."""

MOST_FAILURES = 10
"""Wrong tokens that an address may send in `WINDOW`."""

WINDOW = 60.0
"""Seconds after which an address may guess again."""

PER_SECOND = 20.0
"""Requests a second that are answered of one token, in the long run."""

BURST = 300
"""Requests at once of one token: a page that was opened in a few tabs asks for some dozens each."""

_MOST_ADDRESSES = 10_000


class WrongTokenError(DreamLabError):
    """Somebody came with a token that opens nothing."""

    def __init__(self) -> None:
        super().__init__("That token is none of this page's.")


class TooManyGuessesError(DreamLabError):
    """An address sent wrong tokens too often; nothing that it sends is looked at for a while.

    Attributes:
        seconds: how long.
    """

    def __init__(self, seconds: int) -> None:
        super().__init__(f"Too many wrong tokens came from your address. Wait {seconds} seconds.")
        self.seconds = seconds


class TooFastError(DreamLabError):
    """More requests came with one token than are answered.

    Attributes:
        seconds: after which the next one is.
    """

    def __init__(self, seconds: int) -> None:
        super().__init__(f"Too many requests came with your token. Wait {_counted(seconds)}.")
        self.seconds = seconds


class Access:
    """Turns a token into a visitor.

    Attributes:
        is_open: whether no token is needed, since only this machine reaches the page.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        """Takes the tokens.

        Args:
            settings: which tokens there are.
            clock: seconds since some moment, never set back.
        """
        self._clock = clock
        self._visitors = _visitors(settings)
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._pace = Pace(PER_SECOND, BURST, clock)
        self.is_open = not self._visitors

    def by_token(self, token: str, address: str) -> Visitor:
        """Returns whose token it is.

        Args:
            token: as it came.
            address: where from.

        Raises:
            WrongTokenError: nobody's.
            TooManyGuessesError: the address had too many of those; this one was not looked at.
        """
        guesser = _guesser(address)
        if wait := self._wait(guesser):
            raise TooManyGuessesError(wait)
        digest = _digest(token)
        found = None
        for known, visitor in self._visitors:  # all of them, so that the time tells nothing
            if hmac.compare_digest(known, digest):
                found = visitor
        if found is None:
            self._note_failure(guesser)
            logger.warning("Somebody at %s sent a wrong token.", address)
            raise WrongTokenError
        return found

    def by_fingerprint(self, fingerprint: str) -> Visitor | None:
        """Returns who has a token, by `Visitor.token`; None where it is nobody's, or no longer."""
        found = (visitor for _, visitor in self._visitors if visitor.token == fingerprint)
        return next(found, None)

    def count(self, visitor: Visitor) -> None:
        """Counts a request of a visitor; whoever sits at this machine isn't counted.

        Raises:
            TooFastError: too many came with this token, whatever the browser or address.
        """
        if not self.is_open and (wait := self._pace.wait(visitor.owner.id)):
            raise TooFastError(math.ceil(wait))

    def _wait(self, guesser: str) -> int:
        count, since = self._failures.get(guesser, (0, 0.0))
        left = since + WINDOW - self._clock()
        return int(left) + 1 if count >= MOST_FAILURES and left > 0 else 0

    def _note_failure(self, guesser: str) -> None:
        now = self._clock()
        count, since = self._failures.pop(guesser, (0, now))
        if since + WINDOW <= now:
            count, since = 0, now
        self._failures[guesser] = (count + 1, since)
        while len(self._failures) > _MOST_ADDRESSES:
            self._failures.popitem(last=False)


def _visitors(settings: Settings) -> list[tuple[bytes, Visitor]]:
    """Returns who has which token, by the token's hash."""
    found: list[tuple[bytes, Visitor]] = []
    if settings.web_token:
        text = settings.web_token.get_secret_value()
        found.append((_digest(text), Visitor(Role.ADMIN, YOU, token=_fingerprint(text))))
    for tokens, role in (
        (settings.web_artist_token, Role.ARTIST),
        (settings.web_viewer_token, Role.VIEWER),
    ):
        for token in tokens:
            text = token.get_secret_value()
            fingerprint = _fingerprint(text)
            owner = Owner(f"web:{fingerprint}", f"{role.name.lower()} on the page")
            found.append((_digest(text), Visitor(role, owner, token=fingerprint)))
    return found


@functools.cache
def _fingerprint(token: str) -> str:
    """Returns what a token is known by over restarts, and can't be told from."""
    # The database and its backups hold it: guessing a weak token from it shall be slow, too.
    salt = b"dream lab: owner of a token"
    return hashlib.scrypt(token.encode(), salt=salt, n=2**14, r=8, p=1, dklen=12).hex()


def _counted(seconds: int) -> str:
    return f"{seconds} second{'' if seconds == 1 else 's'}"


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()


def _guesser(address: str) -> str:
    """Returns who is counted: an address, or the whole network that an IPv6 customer is given."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return address
    if ip.ipv4_mapped:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, 64), strict=False))
