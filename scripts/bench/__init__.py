"""What users run to measure."""
