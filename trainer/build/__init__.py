"""What a rank is made of, a line for each part, and its choice between training and a replay."""
