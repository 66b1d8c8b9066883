"""Networks in the layouts of Hugging Face: a file for each kind of network of ours."""
