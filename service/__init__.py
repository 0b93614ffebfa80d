"""HTTP, load and operations around `genrec.Recommender`. No model mathematics, no training."""
