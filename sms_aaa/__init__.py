"""sms-aaa: a telecom operator's subscriber server. This file is the map of the house.

A room may use the rooms below it (import-linter holds this; each room's own sign says more):

    cli                 door: the NOC's command line. Owns the terminal
    server              door: the daemon. Owns sockets, clock, processes
    flows               the stories: load -> decide -> store -> answer
    config | metrics    settings, read once; every metric, declared once
    db | node | radius  PostgreSQL; this machine's disk; bytes <-> meaning
    rules               decisions: frozen values in and out, `now` is an argument
"""

__version__ = "0.1.0"
