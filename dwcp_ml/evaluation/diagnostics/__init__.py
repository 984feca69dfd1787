"""What an evaluation shows beside the metrics, by link, score and feature; it decides nothing."""
