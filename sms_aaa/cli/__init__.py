"""cli/: door, sms-aaa for the NOC. Imports all below. Owns the terminal; one printer (output.py); contains no rule."""
