"""Several replicas behind one front, on emulated devices: throughput, routing, and what a further one costs."""
