"""server/: door, the daemon. Imports flows/ and below. Owns sockets, clock, processes, commits; contains no rule."""
