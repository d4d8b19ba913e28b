"""What operators change, a module a kind of thing; desk.py has what they share."""
