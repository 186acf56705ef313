"""The clients that people have, against a real server, each in an environment of its own with its versions locked."""
