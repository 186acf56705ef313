"""How much code one streamed completion runs through."""
