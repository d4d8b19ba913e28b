"""radius/: bytes <-> meaning of RADIUS. Imports nothing of ours. Pure: never a clock, randomness, a log, I/O."""
