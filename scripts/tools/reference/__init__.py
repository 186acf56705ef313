"""The generated parts of pages in docs/: tables of rings, settings and metrics, from their declarations."""
