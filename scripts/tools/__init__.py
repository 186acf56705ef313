"""What users run beside the server, and what makes the files of docs, configs and tests."""
