"""rules/: decisions. Imports nothing of ours. Frozen values in and out; never a clock, a log, a socket, a row."""
