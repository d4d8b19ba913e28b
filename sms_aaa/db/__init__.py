"""db/: PostgreSQL. Imports rules/. The only room that speaks SQL; gets an open connection, never commits or logs."""
