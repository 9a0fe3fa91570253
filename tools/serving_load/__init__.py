"""Load on a model server: requests from real rows, arrivals, what came of them."""
