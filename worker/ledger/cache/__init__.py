"""The outcome cache in Redis saves the database from repeats. Its values are not trusted without a valid MAC."""
