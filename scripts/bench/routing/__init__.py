"""Which replica should get a request? The server's own router beside other rules, before simulated replicas."""
