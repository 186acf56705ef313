"""What configs/grafana.json is made of."""
