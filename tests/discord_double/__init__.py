"""A double of Discord's gateway and REST over real sockets, strict where Discord is strict.

clock.py      the time that Discord believes it is; stands still unless moved
errors.py     Discord's error codes
limits.py     what Discord refuses in a message or a command
world.py      users, servers, interactions, messages: what Discord remembers
commands.py   what Discord's own program makes of a synced slash command
calls.py      the requests that came in, and the faults they meet
recording.py  a file of them, for others to check
rest.py       the HTTP routes
gateway.py    the websocket
double.py     all of it together, and what people do: type a command, press a button
console.py    what people do, from lines that somebody types
__main__.py   a terminal for that: ``python -m tests.discord_double --help``
"""

from tests.discord_double.calls import Call, Fault
from tests.discord_double.clock import Clock
from tests.discord_double.double import DiscordDouble
from tests.discord_double.world import Interaction, Message

__all__ = ["Call", "Clock", "DiscordDouble", "Fault", "Interaction", "Message"]
