"""Links between machines: what a router and its nodes send each other, and how. Knows no ring and no request."""
