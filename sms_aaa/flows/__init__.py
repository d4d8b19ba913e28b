"""flows/: the stories, load -> decide -> store -> answer. Imports the rooms below. Never commits; has no clock."""
