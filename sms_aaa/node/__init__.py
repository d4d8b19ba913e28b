"""node/: this machine's disk: journal, replica, live set, board. Imports rules/. Alone knows their formats."""
