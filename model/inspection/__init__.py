"""What a look inside a trained network needs: every value on the way, and alignments."""
