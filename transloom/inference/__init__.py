"""The use of a trained model: translating, evaluating."""
