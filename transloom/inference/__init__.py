"""Uses of a trained model: translation, evaluation, generation, serving and export."""
