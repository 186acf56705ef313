"""A front's links to other machines: a router's to its nodes, and a node's to its routers."""
