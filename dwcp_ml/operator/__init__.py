"""What runs in a cluster: the custom resources, and what acts on them."""
