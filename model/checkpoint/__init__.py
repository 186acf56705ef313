"""Files of weights: found and checked by their headers alone, read tensor by tensor."""
