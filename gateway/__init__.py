"""HTTP in, HTTP out: providers' callbacks become credits, and outcomes become providers' replies."""
