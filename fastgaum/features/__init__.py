"""What a candidate is to a network: a feature space, bags, relations, batches. Without torch."""
