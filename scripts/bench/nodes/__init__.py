"""From 16 nodes to 1,000 behind one router or several: the server's own router, recovery and scheduler, simulated."""
