"""The providers, played against a gateway: each signs, hangs up and sends again as its own pages say."""
