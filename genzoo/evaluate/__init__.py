"""Floor 5: scores, costs and pictures of any family, through the contract alone."""
